#!/bin/sh
# Runs a compiler and fails if ptxas has made wgmma instructions wait for each other (C7510): it calls that no warning.
messages=$("$@" 2>&1)
code=$?
[ -z "$messages" ] || printf '%s\n' "$messages" >&2
case $messages in
  *C7510*) exit 1 ;;
esac
exit $code
