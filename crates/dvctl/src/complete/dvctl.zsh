#compdef dvctl
# Completion of dvctl for zsh. Put it into a folder of $fpath as _dvctl.
_dvctl() {
    local line name about
    local -a plain open
    for line in "${(@f)$(${words[1]} __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -z $line ]] && continue
        if [[ $line == :files ]]; then
            _files
            continue
        fi
        name=${line%%$'\t'*}
        about=
        [[ $line == *$'\t'* ]] && about=${line#*$'\t'}
        if [[ $name == *= ]]; then
            open+=("${name//:/\\:}:$about")
        else
            plain+=("${name//:/\\:}:$about")
        fi
    done
    (( ${#plain} )) && _describe -t values dvctl plain
    (( ${#open} )) && _describe -t keys dvctl open -S ''
    return 0
}
if [[ $funcstack[1] == _dvctl ]]; then
    _dvctl "$@"
else
    compdef _dvctl dvctl
fi
