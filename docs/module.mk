# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Man pages, from rst by rst2man (python3-docutils). Where that is missing, the rest still builds.

RST2MAN	?= $(firstword $(foreach c,rst2man rst2man.py,$(shell command -v $(c))))

MAN_DIR	:= docs/man
MAN_RST	:= $(wildcard $(MAN_DIR)/*.8.rst $(MAN_DIR)/*.5.rst)
MAN_INC	:= $(wildcard $(MAN_DIR)/include/*.rst)
MAN_OUT	:= $(MAN_RST:$(MAN_DIR)/%.rst=$(B)/man/%)

.PHONY: man install-man

ifneq ($(RST2MAN),)
all: man

man: $(MAN_OUT)

# A warning of docutils is an error here.
$(B)/man/%: $(MAN_DIR)/%.rst $(MAN_INC)
	$(call say,MAN,$@)mkdir -p $(@D) && $(RST2MAN) --halt=2 $< $@

install-man: man
	install -d $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8
	install -m 644 $(filter %.5,$(MAN_OUT)) $(DESTDIR)$(MANDIR)/man5
	install -m 644 $(filter %.8,$(MAN_OUT)) $(DESTDIR)$(MANDIR)/man8
else
man:
	@echo 'man: rst2man is missing: install python3-docutils' >&2; false

install-man:
	@echo 'install-man: skipped, rst2man is missing (python3-docutils)'
endif
