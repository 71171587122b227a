#!/bin/sh
# Takes what was fetched into a new repository, without the network, for source.py:
# `take_in.sh REPOSITORY REFERENCE bundle|tag FILE`. Nothing is believed of where it comes from: git names each object
# by its content again, and looks at all of them.
set -eu
repository=$1 reference=$2 kind=$3 file=$4

git init --quiet --bare --template= "$repository"
cd "$repository"
if [ "$kind" = tag ]; then
    tag=$(git hash-object -t tag -w --stdin <"$file")
    git update-ref "$reference" "$tag"
    exit
fi
heads=$(git bundle unbundle "$file" "$reference")
git update-ref "$reference" "${heads%% *}"
git rev-parse --verify "$reference^{commit}" >shallow # what came before it was not fetched
git update-ref --no-deref HEAD "$(cat shallow)"
git -c core.bigFileThreshold=1m fsck --strict --no-dangling --no-progress
