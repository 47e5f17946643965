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

# build ARGUMENTS…: cargo build. On a terminal with Cargo's own progress bar, elsewhere with a line every 20 s that says how
# much is done.
build() {
  local started=$SECONDS log pid said=0 so_far all
  if [ -t 2 ]; then
    say "building (a first build takes some minutes)"
    cargo build "$@" || die "the build failed"
    say "built in $((SECONDS - started)) s"
    return
  fi
  log=$(mktemp)
  say "building (a first build takes some minutes; a line every 20 s says how far it is)"
  CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=80 cargo build "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    sleep 1
    if [ $((SECONDS - started)) -ge $((said + 20)) ]; then
      said=$((SECONDS - started))
      # Cargo's bar ends with "done/all": units of compilation.
      read -r so_far all <<<"$(tr '\r' '\n' <"$log" | sed -nE 's|.*\] ([0-9]+)/([0-9]+).*|\1 \2|p' | tail -1)" || true
      [ -z "${all:-}" ] || say "  $so_far of $all compiled after $said s"
    fi
  done
  if ! wait $pid; then
    tr '\r' '\n' <"$log" | grep -v '^ *Building \[' | tail -60 >&2
    rm -f "$log"
    die "the build failed"
  fi
  rm -f "$log"
  say "built in $((SECONDS - started)) s"
}

# The folder that cargo builds into.
target_dir() { cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'; }
