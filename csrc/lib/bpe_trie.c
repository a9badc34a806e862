/*
 * The tree of token bytes as a double array.
 *
 * Aoe, "An Efficient Digital Search Algorithm by Using a Double-Array Structure",
 * IEEE Transactions on Software Engineering 15(9), 1989, with base xor byte in
 * place of base + byte and one label a node in place of the parent's number.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"

/* Nodes are taken 256 at a time: base ^ byte never leaves the block of its base. */
#define BLOCK_NODES 256u

/*
 * How many free places are tried for a node's children before a new block is opened.
 * The search goes on where the last one ended, for a place that did not fit one
 * family rarely fits the next.  Families of several then leave it behind for good;
 * it goes to only children, whose search begins again at the first free place.
 */
#define MAX_TRIES 64

/*
 * Levels of the tree that are placed breadth first, for they are read all the time and
 * should lie together; what is below lies depth first, since a word's path is read at once.
 */
#define TOP_DEPTH 3

/* Children still to be placed: strings[begin .. end) share their first 'depth' bytes, which lead to 'node'. */
struct task {
	uint32_t node, depth, begin, end;
};

struct builder {
	struct trie_node *nodes;
	uint32_t num_nodes, nodes_avail;
	uint32_t *next_free;	/* list of unused nodes; the entry num_nodes_avail is not used: 0 ends the list */
	uint32_t *prev_free;
	uint32_t last_free;
	uint32_t cursor[2];	/* free place to try next, for an only child and for several */
	uint8_t *base_used;
	struct task *tasks;	/* first a queue, then a stack */
	size_t num_tasks, tasks_avail;
};

static bool
grow_nodes(struct builder *b)
{
	uint32_t avail = b->nodes_avail ? 2 * b->nodes_avail : 64 * BLOCK_NODES;
	struct trie_node *nodes = realloc(b->nodes, avail * sizeof(*nodes));
	if (nodes != NULL)
		b->nodes = nodes;
	uint32_t *next = realloc(b->next_free, avail * sizeof(*next));
	if (next != NULL)
		b->next_free = next;
	uint32_t *prev = realloc(b->prev_free, avail * sizeof(*prev));
	if (prev != NULL)
		b->prev_free = prev;
	uint8_t *used = realloc(b->base_used, avail);
	if (used != NULL)
		b->base_used = used;
	if (nodes == NULL || next == NULL || prev == NULL || used == NULL)
		return false;
	b->nodes_avail = avail;
	return true;
}

/* Appends a block of free nodes.  Node 0 is the root and heads the list of free nodes. */
static enum ss_status
open_block(struct builder *b)
{
	if (b->num_nodes + BLOCK_NODES > TRIE_MAX_NODES)
		return SS_ERR_RANGE;
	if (b->num_nodes + BLOCK_NODES > b->nodes_avail && !grow_nodes(b))
		return SS_ERR_NOMEM;
	for (uint32_t i = b->num_nodes; i < b->num_nodes + BLOCK_NODES; i++) {
		b->nodes[i] = (struct trie_node){ .token = NO_TOKEN };
		b->base_used[i] = 0;
		b->next_free[i] = 0;
		if (i == 0)
			continue;
		b->next_free[b->last_free] = i;
		b->prev_free[i] = b->last_free;
		b->last_free = i;
	}
	b->num_nodes += BLOCK_NODES;
	return SS_OK;
}

static bool
base_fits(const struct builder *b, uint32_t base, const uint8_t *labels, size_t num_labels)
{
	/* Base 0 stands for a node without children, and node 0 is taken though not on the list. */
	if (base == 0 || b->base_used[base])
		return false;
	for (size_t i = 0; i < num_labels; i++)
		if ((base ^ labels[i]) == 0 || b->nodes[base ^ labels[i]].link != 0)
			return false;
	return true;
}

static enum ss_status
find_base(struct builder *b, const uint8_t *labels, size_t num_labels, uint32_t *base_ret)
{
	uint32_t *place = &b->cursor[num_labels > 1];

	for (int tries = 0; tries < MAX_TRIES; tries++, *place = b->next_free[*place]) {
		if (*place == 0 && num_labels == 1)
			*place = b->next_free[0];
		if (*place == 0)
			break;
		*base_ret = *place ^ labels[0];
		if (base_fits(b, *base_ret, labels, num_labels))
			return SS_OK;
	}
	*base_ret = b->num_nodes;	/* any base of a new block fits */
	*place = b->num_nodes;
	return open_block(b);
}

static void
take_node(struct builder *b, uint32_t node, uint32_t link)
{
	uint32_t next = b->next_free[node], prev = b->prev_free[node];

	for (int i = 0; i < 2; i++)
		if (b->cursor[i] == node)
			b->cursor[i] = next;
	b->nodes[node].link = link;
	b->next_free[prev] = next;
	if (next != 0)
		b->prev_free[next] = prev;
	else
		b->last_free = prev;
}

static enum ss_status
push_task(struct builder *b, struct task task)
{
	if (b->num_tasks == b->tasks_avail) {
		size_t avail = b->tasks_avail ? 2 * b->tasks_avail : 1024;
		struct task *tasks = realloc(b->tasks, avail * sizeof(*tasks));
		if (tasks == NULL)
			return SS_ERR_NOMEM;
		b->tasks = tasks;
		b->tasks_avail = avail;
	}
	b->tasks[b->num_tasks++] = task;
	return SS_OK;
}

static enum ss_status
place_children(struct builder *b, const struct trie_string *strings, struct task task)
{
	uint8_t labels[256];
	uint32_t begins[257], base;
	size_t num = 0;

	if (strings[task.begin].nbytes == task.depth)
		b->nodes[task.node].token = strings[task.begin++].token;
	for (uint32_t i = task.begin; i < task.end; i++) {
		if (num == 0 || strings[i].bytes[task.depth] != labels[num - 1]) {
			labels[num] = strings[i].bytes[task.depth];
			begins[num++] = i;
		}
	}
	begins[num] = task.end;
	if (num == 0)
		return SS_OK;
	enum ss_status status = find_base(b, labels, num, &base);
	if (status != SS_OK)
		return status;
	b->base_used[base] = 1;
	b->nodes[task.node].link |= base << 9;
	for (size_t i = 0; i < num; i++)
		take_node(b, base ^ labels[i], labels[i] + 1u);
	for (size_t i = 0; i < num && status == SS_OK; i++)
		status = push_task(b, (struct task){ base ^ labels[i], task.depth + 1, begins[i], begins[i + 1] });
	return status;
}

enum ss_status
trie_build(ss_bpe *bpe, const struct trie_string *strings, size_t num)
{
	struct builder b = { 0 };
	enum ss_status status = open_block(&b);
	size_t top = 0;

	if (status == SS_OK)
		status = push_task(&b, (struct task){ .end = (uint32_t)num });
	for (; status == SS_OK && top < b.num_tasks && b.tasks[top].depth < TOP_DEPTH; top++)
		status = place_children(&b, strings, b.tasks[top]);
	while (status == SS_OK && b.num_tasks > top)
		status = place_children(&b, strings, b.tasks[--b.num_tasks]);
	free(b.next_free);
	free(b.prev_free);
	free(b.base_used);
	free(b.tasks);
	size_t nodes_nbytes = b.num_nodes * sizeof(*bpe->trie);
	if (status == SS_OK && (bpe->trie = table_alloc(nodes_nbytes + NUM_JUMPS * sizeof(*bpe->jumps))) == NULL)
		status = SS_ERR_NOMEM;
	if (status == SS_OK) {
		memcpy(bpe->trie, b.nodes, nodes_nbytes);
		bpe->num_nodes = b.num_nodes;
		bpe->jumps = (struct trie_jump *)(bpe->trie + b.num_nodes);
	}
	free(b.nodes);
	return status;
}

const struct trie_node *
trie_find(const ss_bpe *bpe, const uint8_t *bytes, size_t nbytes)
{
	const struct trie_node *node = bpe->trie;

	for (size_t i = 0; i < nbytes && node != NULL; i++)
		node = trie_step(bpe, node, bytes[i]);
	return node;
}
