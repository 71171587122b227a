#!/bin/sh
# /usr/bin/ivy: runs whatever release is current, and the one that the package brought where that cannot be run.
# Not the place for anything else; the command itself is the Python package `ivy`.

root=${IVY_ROOT_DIR:-/var/lib/ivy}
bundled=${IVY_BUNDLED_DIR:-/usr/lib/ivy}

# The release on probation is judged by the one before it.
link=current
if [ "$*" = "run updater" ] && [ -e "$root/previous" ]; then link=previous; fi

# A virtual environment serves one minor version of Python. After an upgrade of the distribution it has none of its
# modules any more; or it still has the old interpreter, for which there are no libraries.
if release=$(readlink -e "$root/$link") && /bin/sh "$bundled/ivy/fits.sh" "$release" 2>/dev/null; then
    exec "$release/.venv/bin/python3" -P -m ivy "$@"
fi

PYTHONPATH=$bundled
export PYTHONPATH
exec /usr/bin/python3 -P -m ivy "$@"
