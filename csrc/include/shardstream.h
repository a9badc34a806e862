/*
 * shardstream.h - the public C interface of shardstream, all of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One header a subject; each is complete in itself.  No function keeps a pointer
 * it was lent, none touches locale or global state, none but ss_read_checked() errno, and all may be called
 * from any number of threads at once on different outputs.
 */
#ifndef SHARDSTREAM_H
#define SHARDSTREAM_H

#include "ss_status.h"
#include "ss_bpe.h"
#include "ss_bpe_train.h"
#include "ss_crc32c.h"
#include "ss_gather.h"
#include "ss_hash.h"
#include "ss_order.h"
#include "ss_pretok.h"
#include "ss_read.h"
#include "ss_sequences.h"
#include "ss_sparse.h"
#include "ss_tar.h"
#include "ss_transform.h"

#endif
