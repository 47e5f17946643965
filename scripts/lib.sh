# shellcheck shell=bash
# Shared by the scripts in this folder: source it from a script that runs in the repository's root.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$1"
  exit "${2:-1}"
}

# need COMMAND=PACKAGE …: installs the Debian packages whose command or file is missing. No daemon is started.
need() {
  local missing=() item
  for item in "$@"; do
    type -P "${item%%=*}" >/dev/null || [ -e "${item%%=*}" ] || missing+=("${item#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}; install them, or run this as root"
  type -P apt-get >/dev/null || die "these packages are missing: ${missing[*]}; apt-get is not here to install them"
  say "installing ${missing[*]}"
  local log policy=/usr/sbin/policy-rc.d made=
  log=$(mktemp)
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    made=1
  fi
  apt-get -o DPkg::Lock::Timeout=300 update -qq >"$log" 2>&1 || true
  if ! DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    tail -5 "$log" >&2
    die "apt-get could not install: ${missing[*]}"
  fi
  [ -z "$made" ] || rm -f $policy
  rm -f "$log"
}

# What a build needs beside Rust.
need_build() {
  type -P cargo >/dev/null || [ ! -e "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  type -P cargo >/dev/null || die "cargo is missing: install Rust 1.95 or newer, then run this again"
  need cc=gcc make=make clang=clang /usr/include/bpf/bpf_helpers.h=libbpf-dev /usr/include/linux/bpf.h=linux-libc-dev
}

# build ARGUMENTS…: cargo build, with one progress line.
build() {
  local started=$SECONDS log
  log=$(mktemp)
  say "building (a first build takes some minutes)"
  if [ -t 2 ]; then
    cargo build "$@" || die "the build failed"
  elif ! cargo build --quiet "$@" 2>"$log"; then
    tail -60 "$log" >&2
    rm -f "$log"
    die "the build failed"
  fi
  rm -f "$log"
  say "built in $((SECONDS - started)) s"
}

# The folder that cargo builds into.
target_dir() { cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'; }
