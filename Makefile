# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Builds, checks and installs ismredir. `make help` lists the targets.

B	?= build
# One name for a folder below here: what was built by another one would not be found to depend on anything.
override B := $(patsubst $(CURDIR)/%,%,$(B))
PREFIX	?= /usr/local
SBINDIR	?= $(PREFIX)/sbin
LIBDIR	?= $(PREFIX)/lib/ismredir
MANDIR	?= $(PREFIX)/share/man
COMPDIR	?= $(PREFIX)/share/bash-completion/completions
DOCDIR	?= $(PREFIX)/share/doc/ismredir
EXAMPLEDIR ?= $(DOCDIR)/examples
UNITDIR	?= $(PREFIX)/lib/systemd/system
DESTDIR	?=

VERSION	:= 0.1.0

V ?= 0
ifeq ($(V),0)
Q := @
say = @printf '  %-7s %s\n' $(1) $(2);
else
Q :=
say =
endif

# bookworm: bpftool is in /usr/sbin, off a user's PATH
CLANG	?= $(firstword $(foreach c,clang clang-19 clang-16 clang-15 clang-14,$(shell command -v $(c))))
BPFTOOL	?= $(firstword $(wildcard $(shell command -v bpftool) /usr/sbin/bpftool /usr/local/sbin/bpftool))
PKGS	:= libbpf json-c smartcols inih libcap-ng

ARCH	:= $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/; s/s390x/s390/; s/riscv64/riscv/')
MULTI	:= $(shell $(CC) -print-multiarch 2>/dev/null)

WERROR	?= $(if $(CI),1,0)
WARN	:= -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror)
CFLAGS	?= -O2 -g
OWN_CFLAGS = -std=gnu11 $(WARN) -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -Iinclude \
	     -Iuser -Iuser/lib -Iuser/fabric -I$(B) -DISM_VERSION='"$(VERSION)"' -DISM_LIBDIR='"$(LIBDIR)"' \
	     $(PKG_CFLAGS)
LDLIBS_ALL = $(PKG_LIBS) -lpthread
BPF_CFLAGS = -g -O2 -target bpf -mcpu=v3 -D__TARGET_ARCH_$(ARCH) $(WARN) -Wno-unused-parameter \
	     -idirafter /usr/include/$(MULTI) -Iinclude -Ibpf

# Targets that need no toolchain do not probe for one.
ifneq ($(filter-out clean deps help,$(or $(MAKECMDGOALS),all)),)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS))
PKG_LIBS := $(shell pkg-config --libs $(PKGS)) -lelf -lz
DAEMON_LIBS := $(shell pkg-config --libs libsystemd liburing)
endif

LIB_SRC	:= $(wildcard user/lib/*.c)
CLI_SRC	:= $(wildcard user/cli/*.c)
FABRIC_SRC := $(wildcard user/fabric/*.c)
DAEMON_SRC := $(wildcard user/daemon/*.c)
# What the preloaded library needs of user/lib; it is linked into foreign programs, so nothing else.
SHIM_SRC := $(wildcard user/shim/*.c) user/lib/ring.c user/lib/tune.c user/lib/program.c
LIB_OBJ	:= $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ	:= $(CLI_SRC:%.c=$(B)/%.o)
FABRIC_OBJ := $(FABRIC_SRC:%.c=$(B)/%.o)
DAEMON_OBJ := $(DAEMON_SRC:%.c=$(B)/%.o)
SHIM_OBJ := $(SHIM_SRC:%.c=$(B)/shim/%.o)
SHIM	:= $(B)/libismredir-preload.so
# It defines recv() and its kin itself, so no FORTIFY; TLS must be usable in signal handlers.
SHIM_CFLAGS = -std=gnu11 $(WARN) -U_FORTIFY_SOURCE -fstack-protector-strong -fPIC -fvisibility=hidden \
	      -ftls-model=initial-exec -fno-strict-aliasing -Iinclude -Iuser/lib -Iuser/shim \
	      -DISM_VERSION='"$(VERSION)"'
# Half of a small send is calls between its files, and what they spill is in the way of the message's own
# stores: so all files at once, where compiler and linker can. vfork.c is assembly that does not bear it.
SHIM_LTO := $(if $(PKG_CFLAGS)$(PKG_LIBS),$(shell d=$$(mktemp -d) && echo 'int f(void) { return 0; }' >$$d/f.c && \
	$(CC) -O2 -flto=auto -fPIC -c -o $$d/f.o $$d/f.c 2>/dev/null && \
	$(CC) -O2 -flto=auto -shared -o $$d/f.so $$d/f.o 2>/dev/null && echo -flto=auto; rm -rf $$d))
BPF_OBJ	:= $(B)/ismredir.bpf.o $(B)/view.bpf.o $(B)/relayd.bpf.o
SKELS	:= $(BPF_OBJ:.bpf.o=.skel.h)

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all install uninstall deps clean help check check-unit check-netns check-apps quickstart \
	bench lint format-check

all: $(B)/ismredir $(B)/ismredird $(SHIM)

include $(wildcard selftests/*/module.mk docs/module.mk)

$(B)/ismredir: $(CLI_OBJ) $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)$(CC) -pie $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(B)/libismredir.a: $(LIB_OBJ)
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

$(B)/ismredird: $(DAEMON_OBJ) $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)$(CC) -pie $(CFLAGS) $(LDFLAGS) -o $@ $(DAEMON_OBJ) $(B)/libismfabric.a \
		$(B)/libismredir.a $(LDLIBS_ALL) $(DAEMON_LIBS)

$(B)/libismfabric.a: $(FABRIC_OBJ)
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

# -z now: lazy binding in a forked child with a small stack has crashed other shims.
$(SHIM): $(SHIM_OBJ)
	$(call say,LINK,$@)$(CC) -shared $(CFLAGS) $(SHIM_LTO) $(LDFLAGS) -Wl,-z,now -Wl,-Bsymbolic-functions -Wl,-z,noseparate-code -Wl,-z,defs -Wl,-soname,$(@F) -o $@ $^ -lpthread

$(B)/shim/user/shim/vfork.o: SHIM_LTO := -fno-lto
$(SHIM_OBJ): $(B)/shim/%.o: %.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(SHIM_CFLAGS) $(SHIM_LTO) -MMD -MP -c -o $@ $<

$(LIB_OBJ) $(CLI_OBJ) $(FABRIC_OBJ) $(DAEMON_OBJ): $(B)/%.o: %.c | $(SKELS)
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(OWN_CFLAGS) -MMD -MP -c -o $@ $<

# gen object drops DWARF and duplicate BTF
$(BPF_OBJ): $(B)/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF,$@)mkdir -p $(@D) && \
		$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $(@:.o=.raw.o) $< && \
		$(BPFTOOL) gen object $@ $(@:.o=.raw.o)

$(SKELS): $(B)/%.skel.h: $(B)/%.bpf.o
	$(call say,SKEL,$@)$(BPFTOOL) gen skeleton $< name $*_bpf > $@ 2>$(B)/$*.skel.log || { cat $(B)/$*.skel.log; false; }

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(BPF_OBJ:.o=.d) $(FABRIC_OBJ:.o=.d) $(DAEMON_OBJ:.o=.d) \
	$(SHIM_OBJ:.o=.d)

# What a fresh Debian lacks. Runtime packages of the tests are in DEPS_TEST.
DEPS_BUILD := clang llvm libbpf-dev bpftool libelf-dev zlib1g-dev libjson-c-dev libsmartcols-dev \
	libinih-dev libcap-ng-dev libsystemd-dev liburing-dev pkg-config gcc make python3-docutils
DEPS_TEST := libcriterion-dev libsodium-dev libclang-rt-14-dev iproute2 nftables iptables jq socat curl \
	redis-server redis-tools iperf3 memcached libmemcached-tools postgresql postgresql-contrib haproxy openssh-server \
	openssh-client nginx-light wrk python3 util-linux procps clang-format cppcheck shellcheck sockperf \
	libpython3.11-testsuite openssl tcl perl dpkg-dev
# check-vm; the guests' kernel is fetched by itself
DEPS_VM := qemu-system-x86 busybox-static kmod xz-utils ndctl systemd
deps:
	$(Q)missing=; for p in $(DEPS_BUILD) $(DEPS_TEST) $(DEPS_VM); do \
		dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -q '^installed$$' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

install: all
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(COMPDIR) $(DESTDIR)$(EXAMPLEDIR)
	install -m 755 $(B)/ismredir $(DESTDIR)$(SBINDIR)/ismredir
	install -m 755 $(B)/ismredird $(DESTDIR)$(SBINDIR)/ismredird
	install -d $(DESTDIR)$(LIBDIR)
	install -m 755 $(SHIM) $(DESTDIR)$(LIBDIR)/libismredir-preload.so
	install -m 644 user/cli/ismredir.bash $(DESTDIR)$(COMPDIR)/ismredir
	install -m 644 docs/ismredir.conf.example $(DESTDIR)$(EXAMPLEDIR)/ismredir.conf
	install -m 644 user/daemon/ismredird-relay.conf $(DESTDIR)$(EXAMPLEDIR)/ismredird-relay.conf
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@SBINDIR@|$(SBINDIR)|' user/cli/ismredir.service > $(DESTDIR)$(UNITDIR)/ismredir.service
	sed 's|@SBINDIR@|$(SBINDIR)|' user/daemon/ismredird.service > $(DESTDIR)$(UNITDIR)/ismredird.service
	$(MAKE) --no-print-directory install-man

uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/ismredird $(DESTDIR)$(LIBDIR)/libismredir-preload.so \
		$(DESTDIR)$(UNITDIR)/ismredird.service
	rm -f $(DESTDIR)$(SBINDIR)/ismredir $(DESTDIR)$(COMPDIR)/ismredir $(DESTDIR)$(UNITDIR)/ismredir.service
	rm -rf $(DESTDIR)$(DOCDIR)
	rm -f $(DESTDIR)$(MANDIR)/man8/ismredir*.8 $(DESTDIR)$(MANDIR)/man5/ismredir*.5

check: all
	$(Q)selftests/check.sh $(B)

lint:
	$(Q)cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr \
		--suppress=missingIncludeSystem '-DLIBBPF_OPTS(t,n,...)=struct t n={0}' \
		-Iinclude -Iuser/lib user
	$(Q)git ls-files '*.sh' .ci/run | xargs shellcheck -x -P SCRIPTDIR
	$(Q)$(MAKE) --no-print-directory format-check

format-check:
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror

clean:
	rm -rf $(B)

help:
	@echo 'all (default)  build $(B)/ismredir'
	@echo 'deps           install what a fresh Debian lacks (root)'
	@echo 'quickstart     demo: redis and iperf3, plain and accelerated (root)'
	@echo 'check          all tests (root): check-unit, -ring, -region, -netns, -apps, -direct, -daemon, -rings'
	@echo 'check-vm       tests in guests with another kernel (docs/vm.rst); not part of check'
	@echo 'bench          side-by-side measurements into docs/ (root, minutes)'
	@echo 'fuzz           libFuzzer targets, FUZZ_TIME=600 seconds each'
	@echo 'soak           verified streams with random options, SOAK_STREAMS=100'
	@echo 'lint           cppcheck, shellcheck, clang-format'
	@echo 'man            manual pages into $(B)/man'
	@echo 'install        to DESTDIR/PREFIX;  uninstall;  clean'
	@echo 'Variables: V=1 shows commands, WERROR=1, B=, CC=, CLANG=, BPFTOOL='
