# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Regions: unit tests, peers that die at any store, peers that are killed, the command line, a fuzzer.

REGION_DIR := selftests/region
REGION_OUT := $(B)/region
# The core as it is tested: it tells of each store, and its clock and processes are the test's.
REGION_SRC := $(FABRIC_SRC) user/lib/err.c
REGION_OBJ := $(REGION_SRC:%.c=$(REGION_OUT)/%.o) $(REGION_OUT)/$(REGION_DIR)/box.o
REGION_SAN := $(REGION_SRC:%.c=$(REGION_OUT)/asan/%.o) $(REGION_OUT)/asan/$(REGION_DIR)/box.o
REGION_CFLAGS = -O2 -g -std=gnu11 $(WARN) -DREGION_TEST -Iinclude -Iuser/lib -Iuser/fabric
REGION_BIN := $(addprefix $(REGION_OUT)/,crash crash-asan kill hold test_region test_region-asan)
FUZZ_REGION := $(B)/unit/fuzz_region

# Workloads in which a peer dies at each store and fence.
REGION_SEEDS ?= 40
REGION_KILLS ?= 150

.PHONY: check-region mutants-region
check-region: all $(REGION_BIN)
	$(Q)$(REGION_DIR)/run.sh $(B) $(REGION_SEEDS) $(REGION_KILLS)

# Are the deaths good for anything? Minutes; not in check.
mutants-region: $(B)/libismfabric.a
	$(Q)$(REGION_DIR)/mutants.py $(B)

check-unit fuzz: $(FUZZ_REGION)

$(REGION_OUT)/%.o: %.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(REGION_CFLAGS) -MMD -MP -c -o $@ $<

$(REGION_OUT)/asan/%.o: %.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(REGION_CFLAGS) $(SAN) -MMD -MP -c -o $@ $<

$(REGION_OUT)/crash: $(REGION_OUT)/$(REGION_DIR)/crash.o $(REGION_OBJ)
	$(call say,LINK,$@)$(CC) -o $@ $^ -lpthread

$(REGION_OUT)/crash-asan: $(REGION_OUT)/asan/$(REGION_DIR)/crash.o $(REGION_SAN)
	$(call say,LINK,$@)$(CC) $(SAN) -o $@ $^ -lpthread

$(REGION_OUT)/test_region: $(REGION_OUT)/$(REGION_DIR)/test_region.o $(REGION_OBJ)
	$(call say,LINK,$@)$(CC) -o $@ $^ -lcriterion -lpthread

$(REGION_OUT)/test_region-asan: $(REGION_OUT)/asan/$(REGION_DIR)/test_region.o $(REGION_SAN)
	$(call say,LINK,$@)$(CC) $(SAN) -o $@ $^ -lcriterion -lpthread

# These two are what users have.
$(REGION_OUT)/kill $(REGION_OUT)/hold: $(REGION_OUT)/%: $(REGION_DIR)/%.c $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(filter-out -DREGION_TEST,$(REGION_CFLAGS)) -o $@ $^ -lpthread

$(FUZZ_REGION): $(REGION_DIR)/fuzz_region.c $(REGION_DIR)/box.c $(REGION_SRC) $(wildcard include/ismredir/*.h user/fabric/*.h $(REGION_DIR)/*.h)
	$(call fuzz_cc,-DREGION_TEST -Iuser/fabric $(filter %.c,$^))

-include $(REGION_OBJ:.o=.d) $(REGION_SAN:.o=.d) $(REGION_OUT)/$(REGION_DIR)/crash.d $(REGION_OUT)/$(REGION_DIR)/test_region.d
