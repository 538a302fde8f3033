# shellcheck shell=bash disable=SC2154 # the variables of the caller
# Compose for install.sh, backup.sh and restore.sh: the one place where it is called. The caller sets $deploy and $env_file.

compose() {
  local files=(--file "$deploy/compose.yaml")
  # As `docker compose` does without --file.
  if [[ -e $deploy/compose.override.yaml ]]; then files+=(--file "$deploy/compose.override.yaml"); fi
  docker compose --project-directory "$deploy" --env-file "$env_file" "${files[@]}" "$@"
}
