# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# What Linux TCP does, as a program of many cases: natively and under the shim.

DIRECT := $(B)/direct
DIRECT_SRC := $(filter posix.c role.c case_%.c,$(notdir $(wildcard selftests/direct/*.c)))
DIRECT_OBJ := $(DIRECT_SRC:%.c=$(DIRECT)/%.o)
DIRECT_FORTIFY := $(DIRECT_SRC:%.c=$(DIRECT)/fortify/%.o)
DIRECT_URING = $(if $(NETNS_URING),-DHAVE_LIBURING)
DIRECT_CFLAGS = -std=gnu11 $(WARN) -g $(DIRECT_URING)

.PHONY: direct-tools check-direct
direct-tools: $(DIRECT)/posix $(DIRECT)/posix-fortify

check-direct: all direct-tools
	$(Q)B=$(abspath $(B)) selftests/direct/run.sh

$(DIRECT)/posix: $(DIRECT_OBJ)
$(DIRECT)/posix-fortify: $(DIRECT_FORTIFY)
$(DIRECT)/posix $(DIRECT)/posix-fortify:
	$(call say,LINK,$@)$(CC) $(LDFLAGS) -o $@ $^ $(if $(NETNS_URING),-luring) -lpthread

$(DIRECT_OBJ): $(DIRECT)/%.o: selftests/direct/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) -O1 -U_FORTIFY_SOURCE $(DIRECT_CFLAGS) -MMD -MP -c -o $@ $<

# The C library's checked twins: __recv_chk and its kin.
$(DIRECT_FORTIFY): $(DIRECT)/fortify/%.o: selftests/direct/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 $(DIRECT_CFLAGS) \
		-MMD -MP -c -o $@ $<

-include $(wildcard $(DIRECT)/*.d $(DIRECT)/fortify/*.d)
