#!/bin/sh
# /usr/bin/ivy: runs whatever release is current, and the one that the package brought where that cannot be run.
# Not the place for anything else; the command itself is the Python package `ivy`.

root=${IVY_ROOT_DIR:-/var/lib/ivy}
bundled=${IVY_BUNDLED_DIR:-/usr/lib/ivy}

# The release on probation is judged by the one before it; by the package's where that is 1.0, which knows of no secrets
# beside a config, and of no samples that must come.
link=current
if [ "$*" = "run updater" ] && [ -e "$root/previous" ]; then
    link=previous
    [ -e "$root/previous/units/ivy-owners.service" ] || link=none
fi

# A procedure is the first process of a PID namespace of its own. To such a one the kernel does not deliver what it has no
# handler for, and a stop would be lost that comes before Python is ready for it: so that waits (see ivy/service.py).
first=
if [ $$ = 1 ] && [ "$1" = run ]; then
    trap 'exit 0' TERM
    first=yes
    # systemd 257 may look at that process before its parent is gone, and then it is "not our child": a stop kills it at
    # once, without the time to end, unless there is another process to wait for.
    sleep infinity &
fi

# Where the package's own answer is damaged, the release's is as good.
fits() { # RELEASE
    for code in "$bundled" "$1"; do
        /bin/sh "$code/ivy/fits.sh" "$1" 2>/dev/null
        status=$?
        if [ "$status" -le 1 ]; then return "$status"; fi
    done
    return 1
}

# A service goes on with what there is: one damaged file is rarely its own. A command, and above all the pass that repairs
# it, are the package's where the release is damaged; unless the package is, too.
is_usable() { # WORD WORD RELEASE
    case "$1 $2" in
    "run updater") ;;
    "run "*) return 0 ;;
    esac
    /bin/sh "$bundled/ivy/whole.sh" "$3" 2>/dev/null
    [ $? != 1 ] || dpkg --verify ivy 2>/dev/null | grep -q " $bundled/"
}

# As the services' units have it: what pydantic would look for at each start, in vain, or check itself.
export PYDANTIC_DISABLE_PLUGINS=__all__ PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS=1 PYTHONTZPATH=/usr/share/zoneinfo

# -P and -s: no code but the release's, Debian's, and the environment's own; least of all what a service left in a home.
# A virtual environment serves one minor version of Python. After an upgrade of the distribution it has none of its
# modules any more; or it still has the old interpreter, for which there are no libraries.
if release=$(readlink -e "$root/$link") && fits "$release" && is_usable "${1-}" "${2-}" "$release"; then
    exec ${first:+/usr/bin/env --block-signal=TERM} "$release/.venv/bin/python3" -P -s -m ivy "$@"
fi

PYTHONPATH=$bundled
export PYTHONPATH
exec ${first:+/usr/bin/env --block-signal=TERM} /usr/bin/python3 -P -s -m ivy "$@"
