# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# What the workloads that run fio share.

# Fails unless fio and the device's disk are there; sets BLOCK, BLOCK_BYTES and FIO_SIZE (bytes to work on).
fio_find_disk() {
	[ -x /usr/bin/fio ] || fail 4 "this image has no fio"
	find_device
	[ "$(pci_link "$DEVICE" driver)" = nvme ] || fail 4 "$DEVICE is not bound to the nvme driver"
	wait_for_block
	BLOCK_BYTES=$(device_block_bytes "$BLOCK")
	# The key "size"; whole is the default of those workloads that use the whole disk.
	FIO_SIZE=$BLOCK_BYTES
	if [ "$UMBRA_size" != whole ]; then
		FIO_SIZE=$(size_bytes "$UMBRA_size")
		[ "$FIO_SIZE" -le "$BLOCK_BYTES" ] ||
			fail 2 "size=$UMBRA_size is more than the disk has ($BLOCK_BYTES bytes)"
	fi
}

# fio_run ARGUMENT…: runs fio on the disk, its JSON report in $WORK/report.json, its errors in $WORK/errors.
fio_run() {
	# Guests on the testbed may have no steady TSC, so the kernel's clock is used. Threads need no SysV shared memory.
	/usr/bin/fio --name=umbra "--filename=/dev/$BLOCK" --direct=1 "--size=$FIO_SIZE" --thread --group_reporting --norandommap=0 \
		--clocksource=clock_gettime --output-format=json "--output=$WORK/report.json" "$@" 2>"$WORK/errors"
}

# Flattens fio's report into lines "path value", such as "jobs.read.iops 1234.5". It relies on fio's layout: one
# member or bracket a line.
fio_flatten() {
	awk '
		{ sub(/^[ \t]+/, ""); sub(/,?[ \t]*$/, "") }
		/[{[]$/ {
			key = ""
			if (split($0, quoted, "\"") >= 3)
				key = quoted[2]
			path[depth + 1] = path[depth] (key == "" ? "" : key ".")
			depth++
			next
		}
		/^[]}]/ { depth--; next }
		/^"/ {
			split($0, quoted, "\"")
			value = $0
			sub(/^"[^"]*"[ \t]*:[ \t]*/, "", value)
			print path[depth] quoted[2] " " value
		}' "$WORK/report.json"
}
