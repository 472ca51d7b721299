#!/bin/sh
# Claude plans a small library, Codex and Claude write it, the result is integrated and verified.
# Everything happens below one folder, which is made anew at each run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${CODESWARM_AGENTS_DIR:-"$(pwd)/.codeswarm-agents"}
export CODESWARM_HOME="$work/home"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [ -e "$work" ]; then
  codeswarm stop-all -y --force >/dev/null 2>&1 || true
  codeswarm down >/dev/null 2>&1 || true
  rm -rf "$work"
fi
mkdir -p "$work/personas"
cp "$here/agents.yaml" "$here/specification.md" "$work/"
cp -R "$here/../personas/task-graph-planner" "$work/personas/planner"
if [ -n "${CODESWARM_AGENTS_CONFIG:-}" ]; then
  mkdir -p "$CODESWARM_HOME"
  cp "$CODESWARM_AGENTS_CONFIG" "$CODESWARM_HOME/config.yaml"
fi

say "1. A repository to work on: $work/roman.git"
git init --quiet --bare --initial-branch=main "$work/roman.git"
git clone --quiet "$work/roman.git" "$work/seed" 2>/dev/null
printf '# Roman numerals\n' >"$work/seed/README.md"
git -C "$work/seed" add README.md
git -C "$work/seed" -c user.name=You -c user.email=you@example.com commit --quiet -m "Begin"
git -C "$work/seed" push --quiet origin HEAD:main
rm -rf "$work/seed"

say "2. \$ codeswarm apply -f agents.yaml --wait"
echo "   An agent that asks is answered in another terminal: codeswarm approvals -w, codeswarm approve NAME"
codeswarm apply -f "$work/agents.yaml" --wait --timeout "${CODESWARM_AGENTS_TIMEOUT:-1800}"

say "3. \$ codeswarm get swarms,projects,tasks"
codeswarm get swarms,projects,tasks

say "4. The result, in your own repository: branch codeswarm/roman/integration"
git -C "$work/roman.git" log --graph --oneline codeswarm/roman/integration
git -C "$work/roman.git" ls-tree -r --name-only codeswarm/roman/integration

say "5. The workers are let go, the branches stay"
codeswarm stop-all -y
codeswarm down

cat <<EOF

The result is in $work/roman.git. To take it:
  git -C $work/roman.git diff main codeswarm/roman/integration
EOF
