#!/bin/sh
# The first process of a machine: its own root over that of the host, then sshd for as long as it lives.
# Arguments: the machine's folder, its host name, seconds until sshd listens.
set -eu
folder=$1 name=$2 boot=$3
read -r pid _ </proc/self/stat  # the host's procfs still: the number that the host knows
echo "pid $pid"
hostname "$name"

box=$folder/box
mount -t tmpfs -o mode=755 tmpfs "$box"
mkdir "$box/up" "$box/work" "$box/root"
cp -a "$folder/files/." "$box/up/"
chown -R 0:0 "$box/up"
mount -t overlay overlay -o "lowerdir=/,upperdir=$box/up,workdir=$box/work" "$box/root"
cd "$box/root"
mkdir -p old shared
for real in mount.nfs mount.nfs4 umount.nfs umount.nfs4 exportfs rpc.nfsd; do
  rm -f "usr/sbin/$real"
done
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
for home in root home srv mnt; do mount -t tmpfs -o mode=755 tmpfs "$home"; done
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p run/sshd run/lock run/nfs var/log/cloud var/lib/cloud/instance home/ubuntu
chown 1000:1000 home/ubuntu
chmod 666 var/log/cloud/calls
pivot_root . old
umount -l /old
cd /
rmdir /old
echo ready

sleep "$boot"
date >/var/lib/cloud/instance/boot-finished
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
while :; do
  while [ -e /run/refuse-ssh ]; do sleep 0.05; done
  /usr/sbin/sshd -D -e -f /etc/ssh/cloud_config || sleep 0.2
done
