# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Builds and runs level 1 of the tests: criterion (plain, and under ASan and UBSan), CLI, fuzzers.

UNIT_DIR := selftests/unit
UNIT_SRC := $(wildcard $(UNIT_DIR)/test_*.c)
UNIT_OBJ := $(UNIT_SRC:$(UNIT_DIR)/%.c=$(B)/unit/%.o)
UNIT_LIBS := -lcriterion -lsodium
# siphash.h speaks to clang in a pragma
UNIT_CFLAGS = $(CFLAGS) $(OWN_CFLAGS) -Wno-unknown-pragmas

# The same sources again under the sanitizers. FORTIFY would hide reads from ASan.
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g
SAN_CFLAGS = $(OWN_CFLAGS) -U_FORTIFY_SOURCE -Wno-unknown-pragmas $(SAN)
SAN_LIB := $(LIB_SRC:%.c=$(B)/unit-asan/%.o)
SAN_CLI := $(CLI_SRC:%.c=$(B)/unit-asan/%.o)
SAN_FABRIC := $(FABRIC_SRC:%.c=$(B)/unit-asan/%.o)
SAN_UNIT := $(UNIT_SRC:%.c=$(B)/unit-asan/%.o)
# The parts of ismredird that are tested here.
UNIT_RELAY := $(addprefix user/daemon/,relay_ring.o relay_end.o relay_hold_step.o relay_crowd.o)
SAN_RELAY := $(addprefix $(B)/unit-asan/,$(UNIT_RELAY))

FUZZ_BIN := $(patsubst $(UNIT_DIR)/%.c,$(B)/unit/%,$(wildcard $(UNIT_DIR)/fuzz_*.c))
FUZZ_SRC := $(addprefix user/lib/,policy.c cgroup.c reasons.c err.c ring.c)
FUZZ_TIME ?= 600
FUZZ_FLAGS := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined

.PHONY: check-unit fuzz
check-unit: all $(B)/unit/unit $(B)/unit-asan/unit $(B)/unit-asan/ismredir $(FUZZ_BIN)
	$(Q)$(UNIT_DIR)/run.sh $(B)

# FUZZ_TIME: seconds for each fuzzer
fuzz: $(FUZZ_BIN)
	$(Q)$(UNIT_DIR)/fuzz.sh $(B) $(B)/fuzz $(FUZZ_TIME)

$(UNIT_OBJ): $(B)/unit/%.o: $(UNIT_DIR)/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(UNIT_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/unit/unit: $(UNIT_OBJ) $(B)/user/cli/output.o $(addprefix $(B)/,$(UNIT_RELAY)) $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)$(CC) -pie $(CFLAGS) $(LDFLAGS) -o $@ $^ $(UNIT_LIBS) $(LDLIBS_ALL)

$(SAN_LIB) $(SAN_CLI) $(SAN_FABRIC) $(SAN_UNIT) $(SAN_RELAY): $(B)/unit-asan/%.o: %.c | $(SKELS)
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/unit-asan/unit: $(SAN_UNIT) $(SAN_LIB) $(B)/unit-asan/user/cli/output.o $(SAN_RELAY) $(B)/libismfabric.a
	$(call say,LINK,$@)$(CC) -pie $(SAN) $(LDFLAGS) -o $@ $^ $(UNIT_LIBS) $(LDLIBS_ALL)

$(B)/unit-asan/ismredir: $(SAN_CLI) $(SAN_FABRIC) $(SAN_LIB)
	$(call say,LINK,$@)$(CC) -pie $(SAN) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

# Without the fuzzer's run-time library there is no binary, and fuzz.sh says so. $(1): sources, options
define fuzz_cc
$(call say,FUZZ,$@)mkdir -p $(@D) && \
	if printf 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n > 9; }' | \
		$(CLANG) $(FUZZ_FLAGS) -x c -o $@.probe - 2>/dev/null; then \
		rm -f $@.probe && $(CLANG) $(CPPFLAGS) -O1 -g -std=gnu11 $(WARN) -Iinclude -Iuser/lib \
			$(FUZZ_FLAGS) -o $@ $(1); \
	else echo '  no libFuzzer for $(CLANG): $(@F) is left out'; fi
endef

$(FUZZ_BIN): $(B)/unit/fuzz_%: $(UNIT_DIR)/fuzz_%.c $(FUZZ_SRC) $(wildcard include/ismredir/*.h user/lib/*.h selftests/ring/*.h)
	$(call fuzz_cc,$< $(FUZZ_SRC) -linih)

-include $(UNIT_OBJ:.o=.d) $(SAN_LIB:.o=.d) $(SAN_CLI:.o=.d) $(SAN_FABRIC:.o=.d) $(SAN_UNIT:.o=.d) $(SAN_RELAY:.o=.d)
