# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Unmodified applications: the tests of level 4 and the first look.

.PHONY: check-apps quickstart
check-apps: all
	$(Q)ISMREDIR=$(abspath $(B))/ismredir selftests/apps/run.sh

quickstart: all
	$(Q)ISMREDIR=$(abspath $(B))/ismredir selftests/apps/quickstart.sh
