# Completion of dvctl for bash. Load it with: source <(dvctl completion bash)
_dvctl() {
    local i word raw line cur prefix=
    local -a words=() lines=()
    # bash splits words at = and :, here they belong to the word.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        raw=${COMP_WORDS[i - 1]}
        if ((${#words[@]})) && [[ $word =~ ^[=:]+$ || ( -n $word && $raw =~ ^[=:]+$ ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    cur=${words[-1]}
    if [[ $COMP_WORDBREAKS == *=* && $cur == *[=:]* ]]; then
        prefix=${cur%"${cur##*[=:]}"}
    fi
    COMPREPLY=()
    mapfile -t lines < <("${COMP_WORDS[0]/#\~/$HOME}" __complete -- "${words[@]}" 2>/dev/null)
    for line in "${lines[@]}"; do
        line=${line%%$'\t'*}
        if [[ $line == :files ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${cur#"$prefix"}")
            continue
        fi
        COMPREPLY+=("${line#"$prefix"}")
    done
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _dvctl dvctl
