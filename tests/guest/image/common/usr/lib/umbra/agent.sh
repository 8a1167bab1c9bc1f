# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# What both agents share: the port, JSON text, time limits. tests/guest/README.md describes the protocol.
#
# The port is file descriptor 3 of the agent. Commands that an agent runs get that descriptor closed, so nothing but the
# agent writes to the port and lines are never mixed. Descriptor 4 is a pipe that tells the agent when a command ended.

AGENT_LINE_LIMIT=65536
carriage_return=$(printf '\r')

# --- JSON ---------------------------------------------------------------------------------------------------------

# Standard input as a JSON string: each byte becomes one character, so any input gives valid JSON.
json_bytes() {
	od -An -v -tx1 | awk '
		BEGIN {
			for (n = 0; n < 256; n++) {
				if (n < 32 || n > 126)
					text = sprintf("\\u%04x", n)
				else
					text = sprintf("%c", n)
				as_json[sprintf("%02x", n)] = text
			}
			as_json["22"] = "\\\""
			as_json["5c"] = "\\\\"
			as_json["0a"] = "\\n"
			as_json["09"] = "\\t"
			printf "\""
		}
		{ for (i = 1; i <= NF; i++) printf "%s", as_json[$i] }
		END { printf "\"" }'
}

# json_file FILE LIMIT: the file's first LIMIT bytes as a JSON string. A short file goes the slow way at once: looking
# at its bytes first would take longer.
json_file() {
	if [ ! -s "$1" ]; then
		printf '""'
	elif [ "$(file_size "$1")" -gt 1024 ] && [ "$(head -c "$2" "$1" | tr -d '\n\t -~' | wc -c)" = 0 ]; then
		head -c "$2" "$1" | json_text
	else
		head -c "$2" "$1" | json_bytes
	fi
}

# As json_bytes, for lines of printable ASCII only, and many times faster. The dot keeps the last line's end.
#
# Of backslashes in the replacement of gsub, "\\\\&" alone means the same to each awk: a backslash, then what matched.
# A tab becomes \t as the output's field separator, which is taken as it stands.
json_text() {
	{ cat; echo .; } | awk '
		BEGIN { printf "\""; FS = "\t"; OFS = "\\t" }
		NR > 1 { printf "%s%s", gap, last; gap = "\\n" }
		{ gsub(/["\\]/, "\\\\&"); $1 = $1; last = $0 }
		END { sub(/\.$/, "", last); printf "%s%s\"", gap, last }'
}

# json_string TEXT
json_string() {
	case $1 in
	*[!\ -~]*) printf %s "$1" | json_bytes ;;
	*[\"\\]*)
		# shellcheck disable=SC3060  # busybox's shell replaces
		json_escaped=${1//\\/\\\\}
		# shellcheck disable=SC3060
		printf '"%s"' "${json_escaped//\"/\\\"}"
		;;
	*) printf '"%s"' "$1" ;;
	esac
}

# json_string_or_null TEXT: null for the empty text.
json_string_or_null() {
	if [ -n "$1" ]; then
		json_string "$1"
	else
		printf null
	fi
}

# json_number_or_null TEXT
json_number_or_null() {
	printf %s "${1:-null}"
}

# json_bool COMMAND...: true if the command succeeds.
json_bool() {
	if "$@" >/dev/null 2>&1; then
		printf true
	else
		printf false
	fi
}

# --- facts about the machine -----------------------------------------------------------------------------------------

# Its first word is the time since boot in seconds, with two decimals.
UPTIME_FILE=/proc/uptime

# Time since boot in hundredths of a second, in UPTIME; as seconds in UPTIME_SECONDS.
read_uptime() {
	read -r UPTIME_SECONDS _ <$UPTIME_FILE
	UPTIME=${UPTIME_SECONDS%.*}${UPTIME_SECONDS#*.}
	# Without leading zeros: to shell arithmetic 098 is an octal number, and a bad one.
	UPTIME=${UPTIME#"${UPTIME%%[!0]*}"}
	UPTIME=${UPTIME:-0}
}

# seconds_since UPTIME_BEFORE, as a decimal number
seconds_since() {
	read_uptime
	since=$((UPTIME - $1))
	printf '%d.%02d' $((since / 100)) $((since % 100))
}

# Fields of `ready` that both agents send.
json_machine() {
	read_uptime
	read -r machine_words </proc/cmdline
	# The file's first line is "MemTotal:", a number and "kB".
	read -r _ machine_memory _ </proc/meminfo
	printf '"protocol":1,"kernel":%s,"kernel_build":%s,"command_line":%s,"cpus":%d,"memory_kib":%s,"uptime_seconds":%s' \
		"$(json_string "$(uname -r)")" "$(json_string "$(uname -v)")" "$(json_string "$machine_words")" \
		"$(nproc)" "$machine_memory" "$UPTIME_SECONDS"
}

# pci_attribute ADDRESS NAME: one line of sysfs, empty if there is none.
pci_attribute() {
	first_line "/sys/bus/pci/devices/$1/$2"
}

# first_line FILE: nothing if it cannot be read
first_line() {
	{ IFS= read -r first_text <"$1" && printf '%s\n' "$first_text"; } 2>/dev/null
}

# pci_link ADDRESS NAME: the last part of what a symbolic link of sysfs points to (driver, iommu_group), or nothing.
pci_link() {
	pci_target=$(readlink "/sys/bus/pci/devices/$1/$2") && echo "${pci_target##*/}"
}

# --- the port -----------------------------------------------------------------------------------------------------

# open_port NAME
open_port() {
	exec 3<>"/dev/virtio-ports/$1"
	mkfifo /run/umbra/ends
	exec 4<>/run/umbra/ends
	say "agent on $1"
}

# send TEXT: one line to the controller. Waits while nobody is connected.
send() {
	printf '%s\n' "$1" >&3
}

# Reads one command line into LINE. An unconnected port reads as end of file: the part of a line that has come is
# kept, and the wait goes on. A line that is too long is read to its end and sets LINE_TOO_LONG=1.
receive() {
	LINE='' LINE_TOO_LONG=''
	while ! IFS= read -r part <&3; do
		receive_append
		sleep 0.2
	done
	receive_append
	LINE=${LINE%"$carriage_return"}
}

receive_append() {
	if [ $((${#LINE} + ${#part})) -gt $AGENT_LINE_LIMIT ]; then
		LINE='' LINE_TOO_LONG=1
	else
		LINE=$LINE$part
	fi
}

# --- time limits ----------------------------------------------------------------------------------------------------

# run_limited SECONDS STDOUT STDERR COMMAND...
#
# Runs a program (not a shell function) as a session of its own, standard input /dev/null. At the limit its process
# group gets SIGTERM, 5 s later SIGKILL; a process that even then stays, because it hangs inside the kernel, is left
# behind. Sets
#   RUN_EXIT       exit status, empty if the limit struck
#   RUN_SECONDS    how long it took
run_limited() {
	run_limit=$1 run_stdout=$2 run_stderr=$3
	shift 3
	run_count=$((run_count + 1))
	read_uptime
	run_start=$UPTIME
	(
		exec 3>&-
		setsid "$@" </dev/null >"$run_stdout" 2>"$run_stderr" 4>&- &
		echo "$run_count group $!" >&4
		wait $!
		echo "$run_count exit $?" >&4
	) &
	run_exit='' run_group='' RUN_EXIT=''
	if run_await "$run_limit"; then
		RUN_EXIT=$run_exit
	else
		run_kill TERM
		run_await 5
		# Also if the group's leader has gone: the leader may have left others behind.
		run_kill KILL
		[ -n "$run_exit" ] || run_await 5
	fi
	RUN_SECONDS=$(seconds_since "$run_start")
}

# run_await SECONDS: reads the pipe until the program has ended; fails if the program does not end in time. A line may
# also come from an earlier program that hung in the kernel and ended after all.
run_await() {
	# shellcheck disable=SC3045  # busybox's read has -t
	while read -r -t "$1" run_number run_what run_value <&4; do
		case $run_number:$run_what in
		"$run_count:group") run_group=$run_value ;;
		"$run_count:exit")
			run_exit=$run_value
			return
			;;
		esac
	done
	return 1
}

# run_kill SIGNAL
run_kill() {
	[ -z "$run_group" ] || kill "-$1" "-$run_group" 2>/dev/null
}

# file_size FILE: in bytes, 0 if there is none
file_size() {
	stat -c %s "$1" 2>/dev/null || echo 0
}

# dropped_bytes FILE LIMIT: what lies beyond the first LIMIT bytes
dropped_bytes() {
	dropped=$(($(file_size "$1") - $2))
	[ "$dropped" -gt 0 ] || dropped=0
	echo "$dropped"
}
