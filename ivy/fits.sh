#!/bin/sh
# Asks whether the environment of a release can run it: `fits.sh RELEASE` exits with 0 if it can. The one place where
# that is decided: for /usr/bin/ivy, and so for all services, and for the updater and the doctor. Repairs nothing.
#
# Only Python can tell, and importing what ivy needs takes a Raspberry Pi up to a second. So a good answer of the
# environment's owner, root, is kept in it, with all that it depends on: interpreter, the environment's own files, and
# what dpkg remembers, which changes with every step that it takes. Times are only compared for being the same, as
# clocks of nodes jump. Whatever else is found there, such as zeros after a power cut, is no answer: Python is asked.
set -u

# Imports take 5 s where everything else starts at the same time. A service has 60 s to start, with what comes after this.
seconds=20
dpkg=${DPKG_ADMINDIR:-/var/lib/dpkg}

cd -P -- "$1/.venv" 2>/dev/null || exit 1

# What a power cut leaves of files that were not synced has their names, and nothing in it.
{ read -r home && read -r packages; } 2>/dev/null <pyvenv.cfg || exit 1
[ "${home#home = /}" != "$home" ] && [ "$packages" = "include-system-site-packages = true" ] || exit 1
for mark in lib/python3.*/site-packages/ivy.pth; do
    { read -r path; } 2>/dev/null <"$mark" && [ "$path" = ../../../.. ] || exit 1
done
[ -x bin/python3 ] || exit 1

depends=$(LC_ALL=C stat -L --printf='%n %i %s %.9Z ' bin/python3 pyvenv.cfg \
    lib/python3.*/site-packages/ivy.pth "$dpkg/status" "$dpkg/updates" 2>/dev/null)
is_complete=$? # without dpkg nothing tells when a library is another one
if { read -r kept; } 2>/dev/null <fits && [ "$is_complete" = 0 ] && [ "$kept " = "$depends" ]; then
    exit 0
fi

# -I: an answer for everybody must not depend on somebody's variables. -B: as root it would leave bytecode behind.
timeout --signal=KILL "$seconds" bin/python3 -I -B -c '
import os.path, sys
import filelock, paho.mqtt.client, psutil, pydantic, pydantic_core, sdnotify
import ivy  # the one of the release, and not what a library or Debian has by this name
sys.exit(0 if os.path.samefile(os.path.dirname(ivy.__file__), "../ivy") else f"another ivy: {ivy.__file__}")
' </dev/null >&2 || exit 1

# Not in what belongs to somebody else: while libraries are installed, that is a user who could lead root astray.
# shellcheck disable=SC3067 # dash has it
if [ "$is_complete" = 0 ] && [ -O . ]; then
    umask 022
    {
        # What is kept must not outlive what it is about.
        sync pyvenv.cfg lib/python3.*/site-packages/ivy.pth && rm -f fits &&
            (set -C && printf '%s\n' "$depends" >fits)
    } 2>/dev/null # a disk that takes nothing
fi
exit 0
