# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The contract of the fabric interface, over every provider, plain and under ASan and UBSan. It is run
# by check-daemon.

CONTRACT_SRC := $(wildcard selftests/fabric/*.c)
CONTRACT_OBJ := $(CONTRACT_SRC:selftests/fabric/%.c=$(B)/fabric/%.o)
CONTRACT_SAN := $(CONTRACT_SRC:%.c=$(B)/fabric-asan/%.o) $(FABRIC_SRC:%.c=$(B)/fabric-asan/%.o) \
	$(B)/fabric-asan/user/lib/err.o
CONTRACT_CFLAGS = -DISM_SELFTESTS='"$(abspath selftests)"'
CONTRACT_SAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer -O1 -g

$(CONTRACT_OBJ): $(B)/fabric/%.o: selftests/fabric/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(OWN_CFLAGS) $(CONTRACT_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/fabric/contract: $(CONTRACT_OBJ) $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)$(CC) -pie $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcriterion -lpthread

$(CONTRACT_SAN): $(B)/fabric-asan/%.o: %.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(OWN_CFLAGS) $(CONTRACT_CFLAGS) -U_FORTIFY_SOURCE \
		$(CONTRACT_SAN_FLAGS) -MMD -MP -c -o $@ $<

$(B)/fabric-asan/contract: $(CONTRACT_SAN)
	$(call say,LINK,$@)$(CC) -pie $(CONTRACT_SAN_FLAGS) $(LDFLAGS) -o $@ $^ -lcriterion -lpthread

-include $(CONTRACT_OBJ:.o=.d) $(CONTRACT_SAN:.o=.d)
