#!/bin/sh
# Fetches a tag, with the network, for source.py: `fetch.sh URL REFERENCE KNOWN BYTES OPTION…`, the options being git's.
# What comes is handed over on standard output: a bundle with all that the tag needs; or only the tag itself, where a
# pack of so many bytes does not hold the rest. Git sends tags and commits first, so the first bytes tell who signed.
#
# The repository is in memory, and gone with the sandbox: whoever gets in here, by a hole in git, cannot stay. That of
# the version before is only read for its objects, so that the server sends the difference.
set -eu
url=$1 reference=$2 known=$3 bytes=$4
shift 4

cd "${TMPDIR:-/tmp}"
git init --quiet --bare --template= all
cd all
if [ -f "$known/shallow" ]; then
    mkdir -p objects/info
    echo "$known/objects" >objects/info/alternates
    cp "$known/shallow" shallow
fi
# Else git would ask that other repository what it has, by its own configuration.
# shellcheck disable=SC2016 # git's shell expands it
has='f() { cat "$1/shallow"; }; f'
if (
    trap '' XFSZ # else git dies of it without a word
    ulimit -f $((bytes / 512))
    git "$@" -c core.alternateRefsCommand="$has" -c fetch.unpackLimit=1 fetch --quiet --no-tags --depth=1 \
        --no-write-fetch-head -- "$url" "+$reference:$reference"
) 2>../errors; then
    exec git bundle create --quiet - "$reference"
fi
if ! grep -q "File too large" ../errors; then
    cat ../errors >&2
    exit 1
fi

git init --quiet --bare --template= ../first
cd ../first
for pack in ../all/objects/pack/tmp_pack_*; do
    git unpack-objects -q <"$pack" 2>/dev/null || true # it is cut off
done
tag=$(git cat-file --batch-all-objects --batch-check='%(objecttype) %(objectname)' | sed -n 's/^tag //p' | head -n 1)
if [ -n "$tag" ]; then
    exec git cat-file tag "$tag"
fi
echo none
