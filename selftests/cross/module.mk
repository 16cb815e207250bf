# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Two hosts that share a region and do not know that they are of one kernel (as root).

.PHONY: check-cross
check-cross: all direct-tools $(B)/netns/traffic $(B)/rings/static_echo $(B)/daemon-asan/ismredird
	$(Q)B=$(abspath $(B)) ISMREDIR=$(abspath $(B))/ismredir selftests/cross/run.sh
