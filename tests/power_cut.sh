#!/usr/bin/env bash
# Cuts the power under a real file system, again and again, and looks whether anything that was acknowledged
# is missing. Each file system lies in an image of its own; a cut is its shutdown ioctl, after which nothing
# that was not synced reaches the image, and the next mount replays the journal. A writer that acknowledges
# before the sync shows that the loss is noticed. Then disks fill up, and are freed again.
#
# Needs Linux, root, loop devices and mkfs.ext4; mkfs.xfs, mkfs.f2fs and mkfs.btrfs are used where they are.
# Where it cannot work it says why, and ends well.
#
#   tests/power_cut.sh can     prints what is missing, and fails if something is
#   AMBERLOG_POWER_CUTS        rounds on each file system (default 10)
#   AMBERLOG_SEED              repeats the choices of a run, as far as chance allows

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# In a name space of its own, so that no mount outlives this process, whatever happens to it.
if [ -z "${AMBERLOG_UNSHARED:-}" ] && unshare --mount true 2>/dev/null; then
    AMBERLOG_UNSHARED=1 exec unshare --mount "$BASH" "tests/${BASH_SOURCE[0]##*/}" "$@"
fi

rounds="${AMBERLOG_POWER_CUTS:-10}"
seed="${AMBERLOG_SEED:-$RANDOM$RANDOM}"
scratch="$(mktemp -d)"
mount="$scratch/mount"
image="$scratch/image"
known="$scratch/known"
mkdir "$mount"
log_of_step="$scratch/step"

unmounted() {
    # Not by looking at the directory: that fails where the disk is gone.
    if grep -qF " $mount " /proc/self/mounts; then umount "$mount" || umount --lazy "$mount"; fi
}

finish() {
    local status=$?
    trap - EXIT
    unmounted || true
    # A loop device goes with its mount; one that was left behind is let go here.
    losetup --associated "$image" --noheadings --output NAME 2>/dev/null |
        while read -r device; do losetup --detach "$device" || true; done
    rm -rf --one-file-system "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

has() { command -v "$1" >/dev/null 2>&1; }

# made TYPE: a new file system of that type in the image, with the options that make it small and quick.
made() {
    local bytes=48M
    case "$1" in xfs) bytes=320M ;; btrfs) bytes=128M ;; f2fs) bytes=64M ;; esac
    rm -f "$image"
    truncate --size "$bytes" "$image"
    case "$1" in
        ext4) mkfs.ext4 -q -F "$image" ;;
        xfs) mkfs.xfs -q -f "$image" ;;
        f2fs) mkfs.f2fs -q -f "$image" >/dev/null ;;
        btrfs) mkfs.btrfs -q -f --mixed "$image" >/dev/null ;;
    esac
}

mounted() { mount -t "$1" -o "loop,noatime$2" "$image" "$mount"; }

# What keeps this script from working here; nothing, if it can.
missing() {
    if [ "$(uname -s)" != Linux ]; then echo "it needs Linux"; return; fi
    if [ "$(id -u)" -ne 0 ]; then echo "it needs root, to mount file systems"; return; fi
    local tool
    for tool in mkfs.ext4 mount umount losetup truncate; do
        if ! has "$tool"; then echo "there is no $tool"; return; fi
    done
    if ! [ -e /dev/loop-control ]; then echo "there are no loop devices"; return; fi
    if ! { made ext4 && mounted ext4 ""; } >"$scratch/why" 2>&1; then
        echo "an ext4 image cannot be mounted: $(tail -n 1 "$scratch/why")"
        return
    fi
    unmounted
}

# step NAME MODE SEED: one step of the test binary; its exit status is that of the step.
step() {
    local status=0
    AMBERLOG_POWER_CUT="$1;$2;$3;$mount;$known" "$binary" power_cut::step --exact --nocapture --test-threads=1 \
        >"$log_of_step" 2>&1 || status=$?
    return "$status"
}

# What a step said, without what the test harness did.
said() { sed -E 's/^test power_cut::step \.\.\. //; /^(ok)?$|^running |^test result/d' "$log_of_step"; }

# honest TYPE OPTIONS STEP SEED: a step that must go well, on a file system that is mounted for it.
honest() {
    mounted "$1" "$2"
    if ! step "$3" honest "$4"; then
        echo "FAILED: $3 on $1$2, seed $seed"
        cat "$log_of_step"
        exit 1
    fi
    unmounted
}

# lives TYPE OPTIONS: lives of writers in one log, each ended by a cut.
lives() {
    local round acknowledged=0 gone=0 words
    for ((round = 1; round <= rounds; round++)); do
        if [ $((round % 15)) -eq 1 ]; then
            # A new log, before this one fills the image.
            rm -rf "$known" && mkdir "$known"
            made "$1"
        fi
        honest "$1" "$2" life "$((seed + round))"
        honest "$1" "$2" check "$((seed + round))"
        read -ra words <<<"$(said | grep ' acknowledged, ')"
        acknowledged=$((acknowledged + words[0]))
        gone=$((gone + words[5]))
    done
    echo "$1$2: $rounds cuts, $acknowledged commits acknowledged, nothing missing;" \
        "$gone events were not synced and are gone"
    if [ "$rounds" -ge 10 ] && [ "$acknowledged" -eq 0 ]; then
        echo "FAILED: the writers wrote nothing"
        exit 1
    fi
}

# lies TYPE OPTIONS: the negative control. A writer that acknowledges before the sync is found out.
lies() {
    local round status
    for ((round = 1; round <= 20; round++)); do
        rm -rf "$known" && mkdir "$known"
        made "$1"
        mounted "$1" "$2"
        step life before-sync "$((seed + round))"
        unmounted
        mounted "$1" "$2"
        status=0
        step check before-sync "$((seed + round))" || status=$?
        unmounted
        if [ "$status" -eq 3 ]; then
            echo "$1$2: a writer that acknowledges before the sync was noticed, in round $round"
            return
        elif [ "$status" -ne 0 ]; then
            echo "FAILED: something else than a loss was found, seed $seed"
            cat "$log_of_step"
            exit 1
        fi
    done
    echo "FAILED: a writer that acknowledges before the sync was never noticed, seed $seed"
    exit 1
}

# fills TYPE OPTIONS: the disk is full in the middle of a commit, and later has space again.
fills() {
    rm -rf "$known" && mkdir "$known"
    made "$1"
    honest "$1" "$2" full "$((seed + 1))"
    echo "$1$2: $(said)"
    honest "$1" "$2" check "$((seed + 1))"
    honest "$1" "$2" check "$((seed + 2))"
}

reason="$(missing)"
if [ "${1:-}" = can ]; then
    if [ -n "$reason" ]; then
        echo "$reason"
        exit 1
    fi
    exit 0
fi
if [ -n "$reason" ]; then
    echo "SKIPPED: no power is cut under a real file system here: $reason"
    exit 0
fi

echo "seed $seed"
binary="$(cargo test --all-features --test real --no-run 2>&1 | tee /dev/stderr |
    sed -nE 's/.*Executable .*\((.*)\).*/\1/p')"
if ! [ -x "$binary" ]; then
    echo "FAILED: the steps could not be built"
    exit 1
fi

lives ext4 ""
lives ext4 ",data=writeback"
lies ext4 ""
fills ext4 ""
for type in xfs f2fs btrfs; do
    if ! has "mkfs.$type"; then
        echo "SKIPPED: $type: there is no mkfs.$type"
    elif ! { made "$type" && mounted "$type" ""; } >"$scratch/why" 2>&1; then
        echo "SKIPPED: $type cannot be mounted: $(tail -n 1 "$scratch/why")"
    else
        unmounted
        # btrfs has no such ioctl, or only of late: there the disk is filled, and nothing cut.
        if [ "$type" != btrfs ]; then lives "$type" ""; fi
        if [ "$type" != btrfs ]; then lies "$type" ""; fi
        fills "$type" ""
    fi
done
