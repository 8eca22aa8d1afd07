# Settings as JSON, for the scripts of the recipes: `python` names the interpreter.

# a list of strings
list() { "$python" -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"; }
# a list of pairs, each given as A=B
pairs() { "$python" -c 'import json, sys; print(json.dumps([p.split("=", 1) for p in sys.argv[1:]]))' "$@"; }
