"""``python -m system_under_test.shell``: run the one machine that the environment names."""

import sys

from system_under_test.shell.serve import main

sys.exit(main())
