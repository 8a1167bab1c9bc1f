# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# What the guest agent's programs share: checks of values, the device under test and its driver.
#
# Steps of a workload, each a run of workload/NAME with the step's name:
#   keys          prints the workload's keys, one a line: NAME DEFAULT KIND RANGE (kinds: number, size, word, below)
#   limits        prints the time limit of measure, and that of prepare and of finish, in seconds
#   prepare       all that must be done before counters are reset; leaves what finish needs in files under $WORK
#   measure       the timed part; standard output is the result's data
#   finish        undoes prepare; runs after every prepare, also a failed one
# The values of the keys are in the environment, as UMBRA_<key>.

WORK=/run/umbra/work

# fail STATUS SENTENCE: ends the program. STATUS is the protocol's (tests/guest/README.md).
fail() {
	fail_status=$1
	shift
	echo "$*" >"$UMBRA_ERROR"
	exit "$fail_status"
}

# --- kinds of values ------------------------------------------------------------------------------------------------

# is_number TEXT MIN MAX: a decimal number without sign or leading zero
is_number() {
	case $1 in
	'' | *[!0-9]* | 0?*) return 1 ;;
	esac
	[ ${#1} -le 15 ] && [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

# is_size TEXT MIN MAX: bytes, or with k, m or g
is_size() {
	is_number "${1%[kmg]}" 1 1073741824 && is_number "$(size_bytes "$1")" "$2" "$3"
}

size_bytes() {
	case $1 in
	*k) echo $((${1%k} << 10)) ;;
	*m) echo $((${1%m} << 20)) ;;
	*g) echo $((${1%g} << 30)) ;;
	*) echo "$1" ;;
	esac
}

# is_word TEXT WORD...
is_word() {
	word_given=$1
	shift
	for word_known; do
		[ "$word_given" != "$word_known" ] || return 0
	done
	return 1
}

# --- the device under test ------------------------------------------------------------------------------------------

PCI_DEVICES=/sys/bus/pci/devices
# Holds the address that the command select was given.
SELECTED=/run/umbra/selected

# Sets DEVICE to the PCI address of the device under test, or fails.
find_device() {
	DEVICE=
	if [ -s $SELECTED ]; then
		read -r DEVICE <$SELECTED
		[ -e "$PCI_DEVICES/$DEVICE" ] || fail 4 "no PCI device $DEVICE (selected)"
		return
	fi
	read -r device_words </proc/cmdline
	for device_word in $device_words; do
		case $device_word in
		umbra.device=*) DEVICE=${device_word#umbra.device=} ;;
		esac
	done
	if [ -n "$DEVICE" ]; then
		[ -e "$PCI_DEVICES/$DEVICE" ] || fail 4 "no PCI device $DEVICE (named by umbra.device=)"
		return
	fi
	for device_path in "$PCI_DEVICES"/*; do
		[ -e "$device_path/class" ] || continue
		read -r device_class <"$device_path/class"
		case $device_class in
		0x0108*)
			DEVICE=${device_path##*/}
			return
			;;
		esac
	done
	fail 4 "no NVMe controller; name the device by umbra.device="
}

# Prints the name of the device's first NVMe namespace that is a disk (nvme0n1), or nothing.
device_block() {
	for block_path in "$PCI_DEVICES/$DEVICE"/nvme/nvme*/nvme*n*; do
		if [ -b "/dev/${block_path##*/}" ]; then
			echo "${block_path##*/}"
			return
		fi
	done
}

# device_block_bytes NAME
device_block_bytes() {
	block_sectors=$(first_line "/sys/class/block/$1/size") && echo $((block_sectors * 512))
}

# bind_driver ADDRESS DRIVER: takes a PCI device from the driver it has and binds it to DRIVER; an empty DRIVER leaves
# it without one. driver_override stays set to DRIVER.
bind_driver() {
	if [ -e "$PCI_DEVICES/$1/driver" ]; then
		echo "$1" >"$PCI_DEVICES/$1/driver/unbind" || fail 1 "cannot unbind $1 from its driver"
	fi
	echo "$2" >"$PCI_DEVICES/$1/driver_override" || fail 1 "cannot set driver_override of $1"
	[ -n "$2" ] || return 0
	# The write fails if the driver refuses the device, so the link decides.
	echo "$1" >/sys/bus/pci/drivers_probe 2>/dev/null
	bind_now=$(readlink "$PCI_DEVICES/$1/driver")
	[ "${bind_now##*/}" = "$2" ] || fail 4 "driver $2 does not take $1 (is it in this kernel?)"
}

# borrow_device DRIVER: gives the device under test to DRIVER until return_device.
borrow_device() {
	find_device
	borrow_owner=$(readlink "$PCI_DEVICES/$DEVICE/driver")
	rm -rf "$WORK" && mkdir -p "$WORK"
	echo "$DEVICE" >"$WORK/borrowed"
	echo "${borrow_owner##*/}" >"$WORK/owner"
	bind_driver "$DEVICE" "$1"
}

# Gives a borrowed device back to the driver that it had, and waits until its disk is there again.
return_device() {
	[ -e "$WORK/borrowed" ] || return 0
	read -r DEVICE <"$WORK/borrowed"
	read -r return_owner <"$WORK/owner"
	bind_driver "$DEVICE" "$return_owner"
	echo >"$PCI_DEVICES/$DEVICE/driver_override"
	rm -f "$WORK/borrowed"
	if [ "$return_owner" = nvme ]; then
		wait_for_block
	fi
}

# Waits for the device's disk and sets BLOCK to its name. The NVMe driver looks for namespaces after it is bound.
wait_for_block() {
	block_waits=0
	while BLOCK=$(device_block) && [ -z "$BLOCK" ]; do
		[ "$block_waits" -lt 300 ] || fail 1 "no disk on $DEVICE after 30 s"
		block_waits=$((block_waits + 1))
		sleep 0.1
	done
}
