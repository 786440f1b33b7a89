#!/usr/bin/env bash
# A real Grid Engine on one machine: sge_qmaster and one sge_execd. Needs root and Debian packages only, no systemd.
# By hand:
#
#   source <(tests/sge/bring_up.sh up)       # prints "export SGE_ROOT=…"; qhost, qsub and qstat then work
#   tests/sge/bring_up.sh down
#   tests/sge/bring_up.sh install            # the packages alone
#
# SGE_LAB (folder, default /tmp/segment-slide-sge) and SGE_LAB_PORT (default 26861) allow two of them side by side.
set -euo pipefail

lab=${SGE_LAB:-/tmp/segment-slide-sge}
port=${SGE_LAB_PORT:-26861}
slots=4
export SGE_ROOT=$lab SGE_CELL=default SGE_QMASTER_PORT=$port SGE_EXECD_PORT=$((port + 1))
tools=/usr/lib/gridengine shared=/usr/share/gridengine
spool=$lab/spool common=$lab/default/common

install_packages() {
    if [[ -x $tools/sge_qmaster && -x $tools/sge_execd && -x $tools/qsub ]]; then
        return
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        gridengine-master gridengine-exec gridengine-client
}

write_configuration() {
    local name
    mkdir -p "$common" "$spool"/{qmaster/job_scripts,execd}
    for name in bin lib util utilbin; do
        ln -sfn "/var/lib/gridengine/$name" "$lab/$name"
    done
    cat >"$common/bootstrap" <<CONF
admin_user              root
default_domain          none
ignore_fqdn             true
spooling_method         classic
spooling_lib            libspoolc
spooling_params         $common;$spool/qmaster
binary_path             /usr/sbin
qmaster_spool_dir       $spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
CONF
    hostname >"$common/act_qmaster"
    # the machine's name and localhost may share an address
    echo "$(hostname) localhost" >"$common/host_aliases"
    # jobs of root are allowed; a test rig answers at once; no job reads the user's profile, for a job that is cancelled
    # in the middle of it may leave a lock there
    sed -e "s|^execd_spool_dir .*|execd_spool_dir $spool/execd|" -e 's|^min_\([ug]\)id .*|min_\1id 0|' \
        -e 's|^administrator_mail .*|administrator_mail none|' -e 's|^login_shells .*|login_shells ksh|' -e 's|^load_report_time .*|load_report_time 00:00:01|' \
        "$shared/default-configuration" >"$lab/configuration"
    "$tools/spoolinit" classic libspoolc "$common;$spool/qmaster" init
    "$tools/spooldefaults" configuration "$lab/configuration"
    "$tools/spooldefaults" complexes "$shared/util/resources/centry"
    "$tools/spooldefaults" usersets "$shared/util/resources/usersets"
    "$tools/spooldefaults" managers root
}

# One queue with slots on this machine, and a parallel environment that gives a job several of them.
write_queue() {
    for ((try = 0; try < 50; try++)); do
        qconf -sh >/dev/null 2>&1 && break
        sleep 0.2
    done
    qconf -as "$(hostname)"
    cat >"$lab/pe" <<CONF
pe_name            smp
slots              999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    \$pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
CONF
    qconf -Ap "$lab/pe"
    qconf -sq | sed -e 's|^qname .*|qname all.q|' -e "s|^hostlist .*|hostlist $(hostname)|" \
        -e 's|^pe_list .*|pe_list smp|' -e "s|^slots .*|slots $slots|" -e 's|^shell .*|shell /bin/bash|' \
        -e 's|^load_thresholds .*|load_thresholds NONE|' -e 's|^rerun .*|rerun FALSE|' >"$lab/queue"
    qconf -Aq "$lab/queue"
    # the scheduler runs every second, and at once when a job comes or ends
    qconf -ssconf | sed -e 's|^schedule_interval .*|schedule_interval 0:0:1|' \
        -e 's|^flush_submit_sec .*|flush_submit_sec 1|' -e 's|^flush_finish_sec .*|flush_finish_sec 1|' >"$lab/scheduler"
    qconf -Msconf "$lab/scheduler"
}

is_up() {
    [[ -s $spool/qmaster/qmaster.pid ]] && kill -0 "$(<"$spool/qmaster/qmaster.pid")" 2>/dev/null
}

up() {
    install_packages >&2
    if ! is_up; then
        write_configuration >&2
        sge_qmaster >&2
        write_queue >&2
        sge_execd >&2
    fi
    for ((try = 0; try < 150; try++)); do
        if qstat -f -q all.q 2>/dev/null | grep -q "^all.q@.* [0-9.]* *lx-[a-z0-9]* *$"; then
            echo "export SGE_ROOT=$SGE_ROOT SGE_CELL=$SGE_CELL SGE_QMASTER_PORT=$SGE_QMASTER_PORT SGE_EXECD_PORT=$SGE_EXECD_PORT"
            return
        fi
        sleep 0.2
    done
    echo "the node did not come up" >&2
    tail -n 5 "$spool"/*/messages "$spool"/execd/*/messages >&2 || true
    return 1
}

down() {
    local pid_file
    for pid_file in "$spool"/execd/*/execd.pid "$spool/qmaster/qmaster.pid"; do
        [[ -s $pid_file ]] && kill "$(<"$pid_file")" 2>/dev/null || true
    done
    for ((try = 0; try < 50; try++)); do
        is_up || break
        sleep 0.2
    done
    rm -rf "$lab"
}

case ${1:-} in
install) install_packages ;;
up) up ;;
down) down ;;
*)
    echo "usage: $0 install|up|down" >&2
    exit 2
    ;;
esac
