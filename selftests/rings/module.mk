# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Unmodified applications on the direct plane (as root).

RINGS	:= $(B)/rings

.PHONY: check-rings soak-rings
check-rings: all $(RINGS)/static_echo
	$(Q)ISMREDIR=$(abspath $(B))/ismredir selftests/rings/run.sh

# All modes, many random moments, and the programs' own suites in full.
soak-rings: all $(RINGS)/static_echo
	$(Q)ISMREDIR=$(abspath $(B))/ismredir selftests/rings/run.sh -a

soak: soak-rings

$(RINGS)/static_echo: selftests/rings/static_echo.c
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -static -o $@ $<
