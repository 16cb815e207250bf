# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The tests of ismredird: the daemon once more with sanitizers, and a fuzzer of what clients send.

DAEMON_SAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer -O1 -g
DAEMON_SAN := $(addprefix $(B)/daemon-asan/,$(DAEMON_SRC:.c=.o) $(FABRIC_SRC:.c=.o) \
	$(addprefix user/lib/,announce.o control_client.o err.o lookup.o pins.o reasons.o))
DAEMON_FUZZ_SRC := selftests/daemon/fuzz_control.c $(filter-out user/daemon/main.c,$(DAEMON_SRC)) \
	$(FABRIC_SRC) $(addprefix user/lib/,announce.c err.c lookup.c pins.c reasons.c)

.PHONY: check-daemon fuzz-daemon
check-daemon: all $(B)/fabric/contract $(B)/fabric-asan/contract $(B)/daemon-asan/ismredird $(B)/daemon/fuzz_control
	$(Q)B=$(abspath $(B)) selftests/daemon/run.sh

fuzz: fuzz-daemon
fuzz-daemon: $(B)/daemon/fuzz_control
	$(Q)selftests/daemon/fuzz.sh $(B) $(FUZZ_TIME)

$(DAEMON_SAN): $(B)/daemon-asan/%.o: %.c | $(SKELS)
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(OWN_CFLAGS) -U_FORTIFY_SOURCE \
		$(DAEMON_SAN_FLAGS) -MMD -MP -c -o $@ $<

# What only the relay needs of the library comes from it as it is.
$(B)/daemon-asan/ismredird: $(DAEMON_SAN) $(B)/libismredir.a
	$(call say,LINK,$@)$(CC) -pie $(DAEMON_SAN_FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL) $(DAEMON_LIBS)

# Without the fuzzer's run-time library there is no binary, and run.sh says so.
$(B)/daemon/fuzz_control: $(DAEMON_FUZZ_SRC) $(B)/libismredir.a $(wildcard include/ismredir/*.h user/lib/*.h user/daemon/*.h user/fabric/*.h)
	$(call say,FUZZ,$@)mkdir -p $(@D) && \
	if printf 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n > 9; }' | \
		$(CLANG) $(FUZZ_FLAGS) -x c -o $@.probe - 2>/dev/null; then \
		rm -f $@.probe && $(CLANG) $(CPPFLAGS) -O1 -g -std=gnu11 $(WARN) -Iinclude -Iuser/lib \
			-Iuser/fabric -Iuser/daemon -I$(B) $(FUZZ_FLAGS) -o $@ $(DAEMON_FUZZ_SRC) \
			$(B)/libismredir.a $(PKG_CFLAGS) \
			$(LDLIBS_ALL) $(DAEMON_LIBS); \
	else echo '  no libFuzzer for $(CLANG): $(@F) is left out'; fi

-include $(DAEMON_SAN:.o=.d)
