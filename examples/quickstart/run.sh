#!/bin/sh
# The main job from nothing: a real repository, a swarm, a project, integrated branches.
# Everything happens below one folder, which is made anew at each run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${CODESWARM_QUICKSTART_DIR:-"$(pwd)/.codeswarm-quickstart"}
export CODESWARM_HOME="$work/home"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [ -e "$work" ]; then
  codeswarm stop-all -y --force >/dev/null 2>&1 || true
  codeswarm down >/dev/null 2>&1 || true
  rm -rf "$work"
fi
mkdir -p "$work"
cp "$here/swarm.yaml" "$work/swarm.yaml"

say "1. A repository to work on: $work/greeter.git"
git init --quiet --bare --initial-branch=main "$work/greeter.git"
git clone --quiet "$work/greeter.git" "$work/seed" 2>/dev/null
printf '# Greeter\n' >"$work/seed/README.md"
git -C "$work/seed" add README.md
git -C "$work/seed" -c user.name=You -c user.email=you@example.com commit --quiet -m "Begin"
git -C "$work/seed" push --quiet origin HEAD:main
rm -rf "$work/seed"
git -C "$work/greeter.git" log --oneline main

say "2. \$ codeswarm apply -f swarm.yaml --wait"
codeswarm apply -f "$work/swarm.yaml" --wait --timeout 120

say "3. \$ codeswarm get swarms,projects,tasks"
codeswarm get swarms,projects,tasks

say "4. The result, in your own repository: branch codeswarm/greeter/integration"
git -C "$work/greeter.git" log --graph --oneline codeswarm/greeter/integration
git -C "$work/greeter.git" ls-tree -r --name-only codeswarm/greeter/integration

say "5. The workers are let go, the branches stay"
codeswarm delete swarm builders --wait
codeswarm down

cat <<EOF

The result is in $work/greeter.git. To take it:
  git -C $work/greeter.git diff main codeswarm/greeter/integration
  git -C $work/greeter.git branch -f main codeswarm/greeter/integration
EOF
