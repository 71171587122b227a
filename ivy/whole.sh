#!/bin/sh
# Looks whether the files of a release are as they were when it was made: `whole.sh RELEASE` exits with 0 if they are. For
# /usr/bin/ivy and units/ivy-repair, which ask before any Python of that release runs. Repairs nothing, names nothing: that
# is the work of ivy/utils/updates/manifest.py, which has written what is read here. It takes 10 ms on a laptop.
set -u

cd -P -- "$1" 2>/dev/null || exit 1
# A release that came with version 1.0 has none, and nor has one that somebody is editing.
[ -e manifest ] || [ -e manifest.bytecode ] || exit 0
for list in manifest manifest.bytecode; do
    [ ! -e "$list" ] || sha256sum --check --status --strict "$list" 2>/dev/null || exit 1
done
