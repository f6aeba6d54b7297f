# ionmd: `make demo` shows a simulated case, `make test` runs everything.  Both work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.ready

.PHONY: help deps build demo test bench figures accuracy check-cortex check-hash check-aarch64 check-instructions \
        check-sanitize check-boot install clean

help:
	@echo "make demo     a simulated case from first sample to alarm"
	@echo "make test     ruff, mypy and the whole test suite"
	@echo "make bench    kernels and whole-daemon figures with their targets (about 25 minutes)"
	@echo "make accuracy estimators on real recordings (about 5 minutes)"
	@echo "make deps     system packages (needs root); CROSS=1 also brings what check-aarch64 needs"
	@echo "make check-hash | check-aarch64 | check-instructions | check-sanitize     the kernels in C (docs/performance.md)"
	@echo "make install  on a cart (docs/or-cart.md); make check-boot installs into a directory and boots it in namespaces"

deps:
	@if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  missing=""; for p in gcc libc6-dev python3-dev python3-venv make; do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  command -v gcc >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq gcc libc6-dev; }; \
	  [ -z "$(CROSS)" ] || { apt-get update -qq && apt-get install -y -qq gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; }; \
	  command -v systemd-analyze >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd; } || true; \
	  [ -z "$$missing" ] || echo "deps: not from the package manager here:$$missing (fine when the commands exist)"; \
	  command -v arm-none-eabi-gcc >/dev/null 2>&1 || apt-get install -y -qq --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi >/dev/null 2>&1 \
	    || echo "deps: no gcc-arm-none-eabi libnewlib-arm-none-eabi here: make check-cortex will not run"; \
	else echo "deps: install a C compiler and the Python headers:  sudo apt-get install gcc libc6-dev python3-dev python3-venv make"; fi

$(STAMP): pyproject.toml requirements.lock
	@command -v gcc >/dev/null 2>&1 || { echo "a C compiler is missing: sudo apt-get install gcc libc6-dev"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: sudo apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "the venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements.lock
	@touch $(STAMP)

build: $(STAMP)
	$(PY) setup.py -q build_ext --inplace
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .

demo: build
	$(VENV)/bin/ionmd demo

test: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q -n 2

bench: build
	$(PY) -m pip install -q --disable-pip-version-check ducc0 scipy mne
	@$(PY) -m bench; missed=$$?; $(PY) -m bench.figures || missed=1; exit $$missed

figures: build
	$(PY) -m bench.figures

accuracy: build
	$(PY) -m bench.accuracy

check-hash check-aarch64 check-instructions check-sanitize: build
	$(PY) -m bench.checks $(subst check-,,$@)

check-cortex:
	sh firmware_sim/firmware/check_cortex.sh

# the installed service under a systemd of its own; SYSTEM_PYTHON is the one that a cart has
SYSTEM_PYTHON ?= /usr/bin/python3
check-boot:
	d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && $(MAKE) -s install PYTHON=$(SYSTEM_PYTHON) DESTDIR=$$d && systemd/check_boot.sh $$d

# LIB is a directory of its own: the versions of requirements.lock, and nothing that the distribution's Python has
# changes.  PYTHON must be one that the service may read: its sandbox hides /home and /root.
DESTDIR ?=
LIB     := /usr/lib/ionmd
install:
	@p="$$($(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))')"; case "$$p" in \
	  /home/*|/root/*) echo "make install: $$p came, which the service may not read (ProtectHome); try PYTHON=/usr/bin/python3"; \
	  [ -n "$(DESTDIR)" ] || exit 1;; esac
	install -D -m 644 systemd/ionmd.service $(DESTDIR)/usr/lib/systemd/system/ionmd.service
	install -D -m 644 systemd/ionmd.socket $(DESTDIR)/usr/lib/systemd/system/ionmd.socket
	install -D -m 644 systemd/70-ionmd.rules $(DESTDIR)/usr/lib/udev/rules.d/70-ionmd.rules
	install -D -m 644 systemd/ionmd.sysusers $(DESTDIR)/usr/lib/sysusers.d/ionmd.conf
	install -D -m 644 systemd/ionmd.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/ionmd.conf
	[ -e $(DESTDIR)/etc/ionmd/ionmd.toml ] || install -D -m 644 systemd/ionmd.toml $(DESTDIR)/etc/ionmd/ionmd.toml
	install -d $(DESTDIR)/usr/share/doc/ionmd $(DESTDIR)/usr/bin
	cp -r docs/. $(DESTDIR)/usr/share/doc/ionmd/
	rm -rf $(DESTDIR)$(LIB)
	$(PYTHON) -m pip install -q --root-user-action=ignore --disable-pip-version-check --no-compile \
	  -c requirements.lock --target=$(DESTDIR)$(LIB) .
	rm -rf $(DESTDIR)$(LIB)/bin
	for verb in ionmd:ionmd.cli ionmd-sim:firmware_sim.cli; do \
	  sed -e "1s|.*|#!$$($(PYTHON) -c 'import sys; print(sys.executable)') -I|" -e "s|MODULE|$${verb#*:}|" \
	    systemd/launcher > $(DESTDIR)/usr/bin/$${verb%%:*} && \
	  chmod 755 $(DESTDIR)/usr/bin/$${verb%%:*}; done
	$(PYTHON) -m compileall -q -j 0 -s "$(DESTDIR)" $(DESTDIR)$(LIB)

clean:
	rm -rf build *.egg-info $(VENV)
