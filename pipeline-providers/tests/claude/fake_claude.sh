#!/bin/sh
# A stand-in for the agent CLI: keeps what it was given in $FAKE_DIR and does what the script there says.
if [ "$1" = --version ]; then echo '2.1.197 (Claude Code)'; exit 0; fi
printf '%s\0' "$@" >"$FAKE_DIR/args"
env >"$FAKE_DIR/env"
pwd >"$FAKE_DIR/cwd"
. "$FAKE_DIR/script"
