"""The part of ``providers.aws_script`` that has to do with the shared volume.

On the coordinator its device is found, formatted if it is blank and was never used, mounted and
exported; on the others it is mounted from there.  What is mounted only the kernel says.
"""

from __future__ import annotations

MOUNTS = r"""
# What is mounted at the root, from the kernel: "TYPE SOURCE DEVICE ID" of the topmost
mounted() {
  awk -v at="$place" '$5 == at { for (i = 7; i <= NF; i++) if ($i == "-") {
    found = $(i + 1) " " $(i + 2) " " $3 " " $1; break } } END { if (found) print found }' \
    /proc/self/mountinfo
}
find_place() {
  begin "workspaceRoot $root"
  place=$root
  case $place in "~/"*) place="$HOME/${place#??}" ;; esac
  while [ "$place" != "${place%/}" ]; do place=${place%/}; done
  above=${place%/*} last=${place##*/}
  [ -n "$last" ] || fail InvalidParameters "$root"
  [ -d "$above/" ] || mkdir -p "$above/" 2>/dev/null || as_root mkdir -p "$above/"
  above=$(cd -P "$above/" && pwd -P) || fail InvalidParameters "$root"
  place="${above%/}/$last"
  [ -n "$(mounted)" ] && return # nothing is asked of a file system that may hang
  [ -e "$place" ] || as_root mkdir "$place"
  if [ -L "$place" ] || [ ! -d "$place" ]; then fail InvalidParameters "$root"; fi
  [ -z "$(as_root ls -A "$place" | head -n 1)" ] || fail RootNotEmpty "$place"
  protect
}
protect() { # nobody takes the folder below the mount for the volume
  [ -d "$place" ] || as_root mkdir "$place"
  as_root chown 0:0 "$place" && as_root chmod 0500 "$place"
}
unmount() {
  tries=0
  while [ -n "$(mounted)" ]; do
    say "unmounting $(mounted)"
    as_root umount -f -l "$place" || as_root umount -l "$place"
    tries=$((tries + 1))
    [ "$tries" -lt 10 ] || fail MountFailed "umount $place" 1
  done
  protect
}
"""

VOLUME = r"""
find_device() {
  short=$(printf %s "$volume" | tr -d -)
  for found in "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$short" \
    "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${short}_1"; do
    if [ -b "$found" ]; then found=$(readlink -f "$found") && return; fi
  done
  for serial in /sys/block/nvme*/device/serial; do
    [ -r "$serial" ] && [ "$(tr -d ' \n' <"$serial")" = "$short" ] || continue
    found=${serial#/sys/block/} found="/dev/${found%%/*}"
    [ -b "$found" ] && return
  done
  # Where EBS is NVMe, names mean nothing; instance storage is NVMe on others too (types like i3)
  grep -qs "Elastic Block Store" /sys/block/nvme*/device/model && return 1
  for found in "$device" "/dev/xvd${device#/dev/sd}"; do
    [ -b "$found" ] && found=$(readlink -f "$found") || continue
    [ "$size_bytes" = 0 ] && return
    [ "$(as_root blockdev --getsize64 "$found")" = "$size_bytes" ] && return
  done
  return 1
}
await_device() {
  begin "waiting for $volume"
  until=$(($(date +%s) + device_seconds))
  until find_device; do
    [ "$(date +%s)" -lt "$until" ] || fail VolumeNotFound "$volume"
    sleep 0.5
  done
  number="$((0x$(stat -Lc %t "$found"))):$((0x$(stat -Lc %T "$found")))"
  say "$volume is $found ($number)"
}
ends() { # the first and the last MiB
  as_root dd if="$found" bs=1048576 count=1 2>/dev/null
  last=$(($(as_root blockdev --getsize64 "$found") / 1048576 - 1))
  as_root dd if="$found" bs=1048576 count=1 skip="$last" 2>/dev/null
}
# Formatted if it was never in use, and there is nothing at all on it: neither for blkid, nor at its
# ends.  The mark tells of a formatting of ours that was cut off.
format() {
  identity=$(as_root blkid -p -o export "$found")
  status=$?
  case $status:$identity in
    0:*TYPE=ext4*) return ;;
    0:* | 8:*) fail VolumeNotBlank "$(printf %s "$identity" | tr '\n' ' ')" "$status" ;;
    2:*) ;;
    *) fail VolumeFailed "blkid -p $found" "$status" ;;
  esac
  [ -n "$may_format" ] || fail VolumeBlank "$volume" "$status"
  if [ ! -e "$marks/formatting-$volume" ]; then
    [ "$(ends | wc -c)" -eq 2097152 ] || fail VolumeFailed "dd if=$found" 1
    [ "$(ends | tr -d '\0' | wc -c)" -eq 0 ] || fail VolumeNotBlank "unknown data" 2
  fi
  begin "formatting $found, which is blank"
  : >"$marks/formatting-$volume"
  sync
  limit=600
  as_root mkfs.ext4 -q -F -m 0 -L "$(printf %.16s "${volume#vol-}")" "$found" ||
    fail VolumeFailed "mkfs.ext4 $found" "$?"
  limit=120
  sync
}
mount_volume() {
  set -- $(mounted)
  if [ "${1-}" != ext4 ] || [ "${3-}" != "$number" ] || [ -e "$marks/mounted" ]; then
    begin "mounting $found at $place"
    unmount
    rm -f "$marks/mounted" # of when it was another one's client
    as_root mount -t ext4 -o noatime "$found" "$place" || fail VolumeFailed "mount $found" "$?"
  fi
  rm -f "$marks/formatting-$volume"
  as_root chown "$(id -u):$(id -g)" "$place" && chmod 700 "$place" ||
    fail VolumeFailed "chown $place" 1
  : >"$place/.codeswarm-$volume" || fail VolumeFailed "$place is not writable" 1
  limit=600
  as_root resize2fs "$found" || say "resize2fs: exit status $?"
  limit=120
}
# NFS version 4 goes to an export by way of all folders above it, and root_squash makes a mount
# nobody's: homes that only their owner may enter (0700, 0750) must be passed through.
open_way() {
  way=${place%/*}
  while [ -n "$way" ]; do
    case $(as_root stat -c %A "$way") in *[xt]) ;; *)
      say "chmod o+x $way"
      as_root chmod o+x "$way" || fail ExportFailed "chmod o+x $way" 1 ;;
    esac
    way=${way%/*}
  done
}
# "mp": the folder below the mount is never exported.  "fsid" is the coordinator's own: handles
# outlive a restart of its server, and are stale for the next one's.
export_volume() {
  if [ -z "$clients" ] && [ ! -e /etc/exports.d/codeswarm.exports ]; then return; fi
  begin "exporting $place to: $clients"
  squash=root_squash
  [ "$(id -u)" = 0 ] && squash=no_root_squash # the workers' own user there
  [ -n "$fsid" ] || fsid=$(as_root blkid -p -s UUID -o value "$found") ||
    fail ExportFailed "blkid $found" "$?"
  line=
  for client in $clients; do
    line="$line $client(rw,sync,no_subtree_check,$squash,mp,fsid=$fsid)"
  done
  if [ -n "$line" ]; then
    line="$place$line"
    open_way
  fi
  put /etc/exports.d/codeswarm.exports "$line"
  # A server that has just begun lets nobody open files for its grace time, 90 s by itself
  if put /etc/nfs.conf.d/codeswarm.conf '[nfsd]
grace-time=10
lease-time=10
vers3=n'; then anew=; else anew=yes; fi
  # Not at boot: until the volume is mounted again, clients are to wait, not to be refused.
  have systemctl && for unit in nfs-server nfs-kernel-server; do
    systemctl -q is-enabled "$unit" 2>/dev/null && as_root systemctl disable "$unit"
  done
  if have systemctl && { [ -n "$anew" ] || ! systemctl -q is-active nfs-server; }; then
    as_root systemctl restart nfs-server 3>&- 9>&- ||
      fail ExportFailed "systemctl restart nfs-server" "$?"
  fi
  as_root exportfs -ra || fail ExportFailed "exportfs -ra" "$?"
}
put() { # FILE TEXT: whether it was there already
  [ "$(cat "$1" 2>/dev/null)" = "$2" ] && return 0
  as_root mkdir -p "${1%/*}"
  printf '%s\n' "$2" | as_root tee "$1.part" >/dev/null && as_root mv -f "$1.part" "$1" ||
    fail ExportFailed "$1" 1
  return 1
}
export_nothing() {
  [ -e /etc/exports.d/codeswarm.exports ] || return 0
  as_root rm -f /etc/exports.d/codeswarm.exports
  have exportfs && as_root exportfs -ra
  return 0
}
# The mark beside what the kernel says: what is mounted now is what we mounted, and from where.
mount_from() {
  now=$(mounted)
  mine=$(cat "$marks/mounted" 2>/dev/null)
  if [ -n "$now" ] && [ "$mine" = "$coordinator $now" ]; then
    timeout -s KILL 15 test -e "$place/.codeswarm-$volume" && return
    [ "$?" -ne 137 ] || fail MountFailed "$coordinator does not answer" 137
  fi
  begin "mounting $coordinator:$place"
  unmount
  limit=$mount_seconds
  as_root mount -t nfs4 -o rw,hard,noatime,vers=4.2 "$coordinator:$place" "$place" ||
    fail MountFailed "mount $coordinator:$place" "$?"
  limit=120
  timeout -s KILL 15 test -w "$place" || fail MountFailed "$place is not writable" "$?"
  timeout -s KILL 15 test -e "$place/.codeswarm-$volume" || fail MountFailed "no $volume there" "$?"
  printf '%s\n' "$coordinator $(mounted)" >"$marks/mounted"
}
"""
