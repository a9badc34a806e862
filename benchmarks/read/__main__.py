import sys

from benchmarks.read.run import main

sys.exit(main())
