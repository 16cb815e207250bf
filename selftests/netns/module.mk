# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The tools of the level-3 tests, and the tests themselves (as root).

NETNS	:= $(B)/netns
NETNS_TOOLS := $(NETNS)/traffic $(NETNS)/cases $(NETNS)/optprog
NETNS_SHARED := $(NETNS)/stream.o $(NETNS)/net.o
NETNS_TRAFFIC := $(patsubst %,$(NETNS)/%.o,traffic session engine io) $(NETNS_SHARED)
NETNS_CASES := $(patsubst selftests/netns/%.c,$(NETNS)/%.o,$(wildcard selftests/netns/case*.c)) $(NETNS_SHARED)

# io_uring is tested where liburing is installed.
ifneq ($(filter-out clean deps help,$(or $(MAKECMDGOALS),all)),)
NETNS_URING := $(shell printf 'int main(void) { return 0; }' | \
	$(CC) -include liburing.h -x c - -o /dev/null -luring 2>/dev/null && echo yes)
endif
NETNS_CFLAGS = -std=gnu11 -Wall -Wextra $(if $(NETNS_URING),-DHAVE_LIBURING) -I$(NETNS) -Iinclude

$(NETNS)/%.o: selftests/netns/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(NETNS_CFLAGS) -MMD -MP -c -o $@ $<

$(NETNS)/optprog.bpf.o: selftests/netns/optprog.bpf.c
	$(call say,BPF,$@)mkdir -p $(@D) && $(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

$(NETNS)/optprog.skel.h: $(NETNS)/optprog.bpf.o
	$(call say,SKEL,$@)$(BPFTOOL) gen skeleton $< name optprog_bpf > $@

$(NETNS)/optprog.o: $(NETNS)/optprog.skel.h

$(NETNS)/traffic: $(NETNS_TRAFFIC)
$(NETNS)/cases: $(NETNS_CASES)
$(NETNS)/optprog: $(NETNS)/optprog.o
$(NETNS)/traffic: NETNS_LIBS = $(if $(NETNS_URING),-luring)
$(NETNS)/optprog: NETNS_LIBS = -lbpf -lelf -lz
$(NETNS_TOOLS):
	$(call say,LINK,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(NETNS_LIBS) -lpthread

-include $(wildcard $(NETNS)/*.d)

SOAK_STREAMS ?= 100

.PHONY: netns-tools check-netns soak
netns-tools: $(NETNS_TOOLS)

check-netns: $(B)/ismredir $(B)/ismredird $(NETNS_TOOLS)
	$(Q)B=$(abspath $(B)) selftests/netns/run.sh

# Streams with random options, for as long as one likes.
soak: $(B)/ismredir $(NETNS_TOOLS)
	$(Q)B=$(abspath $(B)) RANDOM_STREAMS=$(SOAK_STREAMS) selftests/netns/run.sh -v -k streams_random
