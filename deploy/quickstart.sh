#!/bin/sh
# From a bare machine to an answer: installs, builds, starts a coordinator with two workers (each holding half of the demo model),
# asks a question through the gateway and shows the answer as it comes. Then it keeps serving.
#   deploy/quickstart.sh [--once] [--port N] [--yes]      --once stops after the answer
set -eu
cd "$(dirname "$0")/.."

once=no; port=8000; yes=""
while [ $# -gt 0 ]; do
    case $1 in
        --once) once=yes ;;
        --yes) yes=--yes ;;
        --port) port=${2:?--port needs a number}; shift ;;
        *) echo "usage: $0 [--once] [--port N] [--yes]" >&2; exit 2 ;;
    esac
    shift
done

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "1/4 dependencies"
deploy/install-deps.sh $yes
say "2/4 build (a minute or two on two cores)"
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release --target tessera -- --quiet || cmake --build --preset release --target tessera
url=http://127.0.0.1:$port
if curl -s -o /dev/null -m 2 "$url/"; then
    echo "something else already answers on port $port: choose another with --port N" >&2
    exit 1
fi
say "3/4 a cluster: coordinator + 2 workers, tensor parallel"
bin=build/release/bin/tessera
model=deploy/models/tessera-demo-q8_0.gguf
"$bin" serve "$model" --tp 2 --threads 1 --port "$port" &
server=$!
# Ctrl-C reaches the server by itself (it drains and stops); TERM we hand on
trap 'wait $server 2>/dev/null; exit 130' INT
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; exit 143' TERM
tries=0
until curl -sf -o /dev/null "$url/health"; do
    kill -0 $server 2>/dev/null || { echo "the server ended before it was ready (its message stands above)" >&2; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "not ready after 60 s: curl $url/health says why" >&2; kill $server; exit 1; }
    sleep 0.1
done

say "4/4 a question, answered by both workers"
question='What is the capital of France?'
echo "you:     $question"
printf 'tessera: '
curl -sN "$url/v1/chat/completions" -H 'Content-Type: application/json' \
     -d "{\"messages\":[{\"role\":\"user\",\"content\":\"$question\"}],\"stream\":true,\"temperature\":0}" |
    sed -un 's/^data: .*"content":"\([^"]*\)".*/\1/p' | while IFS= read -r piece; do printf '%b' "$piece"; done
printf '\n'
health=$(curl -s "$url/health")
echo "health:  $(echo "$health" | sed 's/.*"status":"\([^"]*\)".*/\1/'), $(echo "$health" | grep -o '"ready":true' | wc -l) of 2 ranks ready"
printf '\n'

if [ $once = yes ]; then
    kill $server
    wait $server || true
    say "done. Without --once it keeps serving."
    exit 0
fi
say "serving on $url/v1 (Ctrl-C stops)"
cat <<TXT
Ask it from another terminal:
  curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
       -d '{"messages":[{"role":"user","content":"What is 7 + 5?"}]}'
or with Python's openai package (python3 -m venv v; v/bin/pip install openai):
  OPENAI_BASE_URL=$url/v1 OPENAI_API_KEY=none v/bin/python -c 'import openai; print(openai.OpenAI().chat.completions.create(
      model="tessera-demo", messages=[{"role": "user", "content": "Tell me the story of the fox."}]).choices[0].message.content)'
Serve a model of your own:
  $bin serve /path/to/model.gguf --tp 2
TXT
wait $server
