# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The ring between threads and processes, under the sanitizers, and with a partner that lies.

RING_DIR := selftests/ring
RING_OUT := $(B)/ring
RING_CFLAGS = -std=gnu11 $(WARN) -g -Iinclude -Iuser/lib
RING_DEPS := user/lib/ring.c $(wildcard user/lib/ring.h user/lib/tune.h include/ismredir/dmb.h $(RING_DIR)/*.h)
RING_BIN := $(RING_OUT)/stress $(RING_OUT)/stress-asan $(RING_OUT)/stress-tsan $(RING_OUT)/hostile-asan

# Seconds for each part; soak: each of them, many times as long.
RING_TIME ?= 6
RING_SOAK ?= 120

.PHONY: check-ring soak-ring
check-ring: $(RING_BIN)
	$(Q)$(RING_DIR)/run.sh $(B) $(RING_TIME)

soak-ring: $(RING_BIN)
	$(Q)$(RING_DIR)/run.sh $(B) $(RING_SOAK) random

soak: soak-ring

$(RING_OUT)/%: $(RING_DIR)/%.c $(RING_DEPS)
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) -O2 $(RING_CFLAGS) -o $@ $< user/lib/ring.c -lpthread

$(RING_OUT)/%-asan: $(RING_DIR)/%.c $(RING_DEPS)
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(RING_CFLAGS) $(SAN) -o $@ $< user/lib/ring.c -lpthread

# clang: gcc warns of fences, which its race detector does not know. Without the run-time library there is
# no binary, and run.sh says so.
$(RING_OUT)/%-tsan: $(RING_DIR)/%.c $(RING_DEPS)
	$(call say,LINK,$@)mkdir -p $(@D) && rm -f $@ && \
	if printf 'int main(void) { return 0; }' | $(CLANG) -fsanitize=thread -x c -o $@.probe - 2>/dev/null; then \
		rm -f $@.probe && $(CLANG) $(CPPFLAGS) -O1 $(RING_CFLAGS) -fsanitize=thread -o $@ $< \
			user/lib/ring.c -lpthread; \
	else echo '  no thread sanitizer for $(CLANG): $(@F) is left out'; fi
