#!/bin/sh
# The first process of a machine: its own root over that of the host, then sshd as long as it lives.
# Arguments: folder of what it has written (an overlay's upper and work), host name, seconds until
# sshd listens.
set -eu
box=$1 name=$2 boot=$3
read -r pid _ </proc/self/stat  # the host's procfs still: the number that the host knows
echo "pid $pid"
hostname "$name"

mount -t overlay overlay -o "lowerdir=/,upperdir=$box/upper,workdir=$box/work" "$box/root"
cd "$box/root"
mkdir -p old shared
mount -t proc -o nosuid,nodev,noexec proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs dev
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  set -- $node
  mknod -m 666 "dev/$1" c "$2" "$3"
done
mkdir -p dev/pts dev/shm dev/disk/by-id
mount --bind /dev/pts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /dev/pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sshd run/lock run/nfs
rm -f var/lib/cloud/instance/boot-finished
pivot_root . old
umount -l /old
cd /
echo ready

sleep "$boot"
[ ! -e /etc/nfs-server-enabled ] || /usr/lib/cloud-standin
date >/var/lib/cloud/instance/boot-finished
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
while :; do
  while [ -e /run/refuse-ssh ]; do sleep 0.05; done
  /usr/sbin/sshd -D -e -f /etc/ssh/cloud_config || sleep 0.2
done
