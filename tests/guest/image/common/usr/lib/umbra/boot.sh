# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# Early boot of both images, sourced by /init (process 1): file systems, names of virtio-serial ports, the kernel
# command line, and the ways to end.
#
# In a nested guest a program's start takes some 50 ms, far more than a fork. So here and in the agents, shell builtins
# come first, and busybox programs that the shell runs without exec (head, ls, mkdir, readlink, rm, stat and others, but
# not cat, mount or sleep).

PATH=/usr/bin:/usr/sbin:/bin:/sbin
HOME=/
export PATH HOME

say() {
	echo "umbra: $*" >/dev/console
}

# boot_mount RUN_SIZE: mounts what the agents need, most of it from /etc/fstab, in one start of a program. RUN_SIZE
# bounds /run, where all output of commands is kept.
boot_mount() {
	/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /dev /proc /sys /run /tmp
	/bin/busybox --install -s
	mount -t devtmpfs none /dev
	mkdir -p /dev/pts /dev/shm
	mount -a
	mount -t tmpfs -o "size=$1,mode=0755" none /run
	mkdir -p /run/umbra
	exec </dev/console >/dev/console 2>&1
	ip link set lo up 2>/dev/null
	boot_name_ports
}

# Gives every virtio-serial port the name /dev/virtio-ports/NAME, as udev does elsewhere.
boot_name_ports() {
	mkdir -p /dev/virtio-ports
	for boot_port in /sys/class/virtio-ports/*; do
		[ -s "$boot_port/name" ] || continue
		read -r boot_name <"$boot_port/name"
		# The machine's owner chose the name, but a name with a slash would still leave the folder.
		case $boot_name in
		*/* | .*) continue ;;
		esac
		ln -sf "../${boot_port##*/}" "/dev/virtio-ports/$boot_name"
	done
}

# Succeeds if WORD stands on the kernel command line.
boot_has_word() {
	read -r boot_words </proc/cmdline
	case " $boot_words " in
	*" $1 "*) return 0 ;;
	esac
	return 1
}

boot_power_off() {
	sync
	poweroff -f
	# Without ACPI the call returns; process 1 must not.
	while :; do sleep 3600; done
}

# A shell on the console until its user leaves it, then power off.
boot_shell() {
	say "shell on the console; leave it to power off"
	setsid cttyhack sh
	boot_power_off
}
