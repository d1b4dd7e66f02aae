#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""make-qmp-schema.py [QEMU] > qmp-schema.json

Asks a QEMU (qemu-system-x86_64 unless given) for query-qmp-schema and keeps the commands below with
the types of their arguments, so that the fake monitor of the unit tests can refuse what the real
one would.  Run it again to follow a newer QEMU or to add a command.
"""
import json
import subprocess
import sys

COMMANDS = """
announce-self block-dirty-bitmap-remove block-export-add block-export-del block_resize closefd cont
getfd migrate migrate-continue migrate-incoming migrate-set-capabilities migrate-set-parameters
migrate_cancel nbd-server-start nbd-server-stop object-add object-del qmp_capabilities qom-get
qom-list query-block query-block-exports query-block-jobs query-blockstats query-chardev
query-migrate query-migrate-capabilities query-migrate-parameters query-name
query-named-block-nodes query-qmp-schema query-status query-uuid query-version quit stop
system_reset transaction
""".split()


def read_schema(qemu):
    commands = ['qmp_capabilities', 'query-qmp-schema', 'quit']
    lines = ''.join(json.dumps({'execute': c, 'id': c}) + '\n' for c in commands)
    run = subprocess.run([qemu, '-M', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'],
                         input=lines, stdout=subprocess.PIPE, check=True, text=True)
    for line in run.stdout.splitlines():
        reply = json.loads(line)
        if reply.get('id') == 'query-qmp-schema':
            return reply['return']
    sys.exit('no answer to query-qmp-schema')


def referred(entry):
    """The types that an entry is made of; of a command, those of its arguments."""
    if entry['meta-type'] == 'command':
        return [entry['arg-type']]
    members = entry.get('members', []) + entry.get('variants', [])
    types = [m['type'] for m in members if 'type' in m]
    return types + [entry['element-type']] if 'element-type' in entry else types


def trim(schema):
    by_name = {entry['name']: entry for entry in schema}
    todo = list(COMMANDS)
    kept = {}
    while todo:
        name = todo.pop()
        if name in kept:
            continue
        entry = kept[name] = dict(by_name[name])
        todo += referred(entry)
        # Of replies only the shape is kept; enums have all in "members" that "values" has.
        if 'ret-type' in entry:
            entry['x-returns'] = by_name[entry['ret-type']]['meta-type']
        if entry['meta-type'] == 'enum' and 'members' in entry:
            del entry['members']
    return [kept[name] for name in sorted(kept)]


entries = trim(read_schema(sys.argv[1] if len(sys.argv) > 1 else 'qemu-system-x86_64'))
print('[' + ',\n'.join(json.dumps(e, separators=(',', ':')) for e in entries) + ']')
