#!/usr/bin/env bash
# One real Apache Kafka broker (KRaft) on loopback for the tests, from Maven jars. No container, no root.
#
#   kafka.sh provision           copy the jars into the user's cache (needs Maven, once)
#   kafka.sh warm                make a class-data archive: the broker then starts with about half the CPU time
#   kafka.sh start               start the broker if it is not running, and wait until it answers
#   kafka.sh stop | kill         end it with SIGTERM (SIGKILL after 15 s) | with SIGKILL
#   kafka.sh status              one line; succeeds only when the broker answers
#   kafka.sh topic NAME [PARTITIONS] [SETTING=VALUE...]    create a topic unless it exists
#   kafka.sh topics              list the topics
#   kafka.sh bootstrap           print the address
#   kafka.sh tool CLASS [ARGUMENT...]    run one of Kafka's own command-line tools, against whatever broker it is told
#   kafka.sh clean               stop the broker and delete its data
#
# Settings: SANDBAR_KAFKA_PORT (29392; the controller takes the next one), SANDBAR_KAFKA_DATA (a folder below TMPDIR),
# SANDBAR_KAFKA_HEAP (512m), SANDBAR_KAFKA_SETTINGS (further lines for server.properties; they win), XDG_CACHE_HOME,
# SANDBAR_KAFKA_PROXY_PORT (a second listener, on the port after the controller's, tells its clients to connect to this
# one: a proxy that stands there is between them and the broker).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kafka
port=${SANDBAR_KAFKA_PORT:-29392}
data=${SANDBAR_KAFKA_DATA:-${TMPDIR:-/tmp}/sandbar-kafka-$(id -u)}
heap=${SANDBAR_KAFKA_HEAP:-512m}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sandbar
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
jars=$cache/kafka-$version
archive=$cache/kafka-$version.jsa
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

fail() { echo "kafka.sh: $*" >&2; exit 1; }
say() { echo "kafka.sh: $*" >&2; }

provision() {
  [[ -e $jars/.complete ]] && return
  command -v mvn >/dev/null || fail "Maven is needed to fetch Kafka $version: install it (Debian: apt-get install maven)"
  mkdir -p "$cache"
  (
    flock 9
    [[ -e $jars/.complete ]] && exit 0
    rm -rf "$jars"
    # The working directory is the cache: Maven without a project may leave files where it runs.
    cd "$cache"
    mvn -B -q -ntp -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$jars" </dev/null >"$cache/kafka-provision.log" 2>&1 9>&- ||
      { tail -n 20 "$cache/kafka-provision.log" >&2; fail "Maven could not fetch Kafka $version"; }
    compgen -G "$jars/kafka_*.jar" >/dev/null || fail "Maven left no broker jar in $jars"
    touch "$jars/.complete"
  ) 9>"$cache/kafka.lock"
  say "Kafka $version is in $jars"
}

need_java() { command -v "$java" >/dev/null || fail "Java 17 or later is needed (Debian: apt-get install openjdk-17-jre-headless)"; }

# The process id, if the broker of this data folder runs.
broker_pid() {
  local pid
  [[ -s $data/pid ]] && pid=$(<"$data/pid") && kill -0 "$pid" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$data/server.properties" && echo "$pid"
}

# Sends one ApiVersions request (key 18, version 0) and waits for the length of its answer.
answers() {
  [[ $(timeout 3 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf '\0\0\0\012\0\022\0\0\0\0\0\001\0\0' >&3 &&
    head -c 4 <&3 | wc -c" 2>/dev/null) == 4 ]]
}

write_properties() {
  cat >"$data/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/log
# One broker holds every replica.
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A small machine, and tests that start many groups.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
# A topic that nobody created is an error.
auto.create.topics.enable=false
# The weather reports are of 2013: by age they would be deleted at once.
log.retention.ms=-1
P
  if [[ -n ${SANDBAR_KAFKA_PROXY_PORT:-} ]]; then
    cat >>"$data/server.properties" <<P
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1)),PROXIED://127.0.0.1:$((port + 2))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$SANDBAR_KAFKA_PROXY_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
P
  fi
  printf '%s\n' "${SANDBAR_KAFKA_SETTINGS:-}" >>"$data/server.properties"
}

launch() { # further JVM options
  write_properties
  if [[ ! -e $data/log/meta.properties ]]; then
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)
    tool kafka.tools.StorageTool format -t "$id" -c "$data/server.properties" >"$data/format.log" 2>&1 ||
      { cat "$data/format.log" >&2; fail "cannot format $data/log"; }
  fi
  setsid "$java" "-Xms$heap" "-Xmx$heap" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "$@" -Djava.awt.headless=true \
    -Dsandbar.log.level=INFO "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$jars/*" \
    kafka.Kafka "$data/server.properties" </dev/null >>"$data/server.log" 2>&1 9>&- &
  echo $! >"$data/pid"
  disown $!
}

tool() { # class arguments
  local options=()
  # Most of what a tool loads, the broker loads too.
  [[ -s $archive ]] && options=("-XX:SharedArchiveFile=$archive" -Xlog:cds=off -Xlog:cds+dynamic=off)
  timeout 120 "$java" -Xmx256m -XX:TieredStopAtLevel=1 ${options[@]+"${options[@]}"} "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$jars/*" "$@" 9>&-
}

wait_ready() {
  local deadline=$((SECONDS + 120))
  until answers; do
    broker_pid >/dev/null || { tail -n 30 "$data/server.log" >&2; fail "the broker ended while it started; its log is $data/server.log"; }
    ((SECONDS < deadline)) || { tail -n 30 "$data/server.log" >&2; fail "the broker did not answer within 120 s"; }
    sleep 0.1
  done
}

start() { # further JVM options
  provision
  need_java
  mkdir -p "$data"
  exec 9>"$data/lock"
  flock 9
  if ! broker_pid >/dev/null; then
    answers && fail "port $port is taken by another process; set SANDBAR_KAFKA_PORT"
    local options=("$@")
    [[ $# -eq 0 && -s $archive ]] && options=("-XX:SharedArchiveFile=$archive" -Xlog:cds=off -Xlog:cds+dynamic=off)
    launch ${options[@]+"${options[@]}"}
  fi
  wait_ready
  exec 9>&-
  say "ready at 127.0.0.1:$port"
}

stop() { # signal
  local pid deadline=$((SECONDS + 15))
  pid=$(broker_pid) || return 0
  kill "-$1" "$pid"
  while kill -0 "$pid" 2>/dev/null; do
    ((SECONDS < deadline)) || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.1
  done
  rm -f "$data/pid"
}

warm() {
  [[ -s $archive ]] && return
  port=$((port + 70)) data=$data-warm
  rm -rf "$data"
  start "-XX:ArchiveClassesAtExit=$archive.new" -Xlog:cds=off -Xlog:cds+dynamic=off
  # Writing the archive takes longer than a usual stop.
  local pid deadline=$((SECONDS + 120))
  pid=$(broker_pid)
  kill -TERM "$pid"
  while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.2; done
  rm -rf "$data"
  [[ -s $archive.new ]] || fail "the broker wrote no class-data archive"
  mv "$archive.new" "$archive"
  say "class-data archive in $archive"
}

verb=${1:-help}
shift || true
case $verb in
  provision) provision ;;
  warm) warm ;;
  start) start ;;
  stop) stop TERM ;;
  kill) stop KILL ;;
  status)
    pid=$(broker_pid) || fail "no broker runs on $data"
    answers || fail "the broker (process $pid) does not answer at 127.0.0.1:$port"
    echo "up, process $pid, 127.0.0.1:$port, resident $(awk '/VmRSS/{print int($2 / 1024)}' "/proc/$pid/status") MB"
    ;;
  topic)
    name=${1:?kafka.sh topic NAME [PARTITIONS] [SETTING=VALUE...]}
    partitions=${2:-1}
    shift $(($# < 2 ? $# : 2))
    # Without a broker the tools would retry for minutes.
    answers || fail "no broker answers at 127.0.0.1:$port; run kafka.sh start"
    settings=()
    for setting in "$@"; do settings+=(--config "$setting"); done
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --create --if-not-exists \
      --topic "$name" --partitions "$partitions" ${settings[@]+"${settings[@]}"}
    ;;
  topics)
    answers || fail "no broker answers at 127.0.0.1:$port; run kafka.sh start"
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --list
    ;;
  bootstrap) echo "127.0.0.1:$port" ;;
  tool)
    [[ $# -gt 0 ]] || fail "kafka.sh tool CLASS [ARGUMENT...]"
    provision
    need_java
    tool "$@"
    ;;
  clean)
    stop TERM
    rm -rf "$data"
    ;;
  help | -h | --help) sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -e '/^set -euo/d' -e 's/^# \{0,1\}//' ;;
  *) fail "unknown verb '$verb'; see kafka.sh help" ;;
esac
