#!/bin/sh
# Runs one step of the Makefile: says what it does, keeps its output in a log, and shows the log's
# end when it fails.
# usage: step.sh MESSAGE COMMAND...
# A line of CMake that says that an engine is left out is shown, too.
set -u
log=build/log.txt
echo "mlxbench: $1"
shift
mkdir -p build
"$@" >build/step.log 2>&1
status=$?
cat build/step.log >>$log
if [ $status = 0 ]; then
    sed -n 's/^-- \(.*the engine mlx is left out.*\)/mlxbench: \1/p' build/step.log
else
    grep -n -E '(error|Error)( |:)' build/step.log | head -n 10 >&2
    tail -n 15 build/step.log >&2
    echo "mlxbench: this failed: $*" >&2
    echo "mlxbench: all of its output is at the end of $log" >&2
fi
rm -f build/step.log
exit $status
