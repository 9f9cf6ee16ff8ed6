# bash completion of tessera: commands, options and their values, as the program's own --help lists them.
# Installed as share/bash-completion/completions/tessera; from a source tree: `source deploy/completion/tessera.bash`.

_tessera() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} before= page words
    COMPREPLY=()
    if [[ $cur == = ]]; then # --name=value is three words to bash
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if ((COMP_CWORD == 1)); then
        words=$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')
        COMPREPLY=($(compgen -W "$words help" -- "$cur"))
        return
    fi
    if [[ $command == bench ]]; then
        if ((COMP_CWORD == 2)); then
            COMPREPLY=($(compgen -W "engine step scaling serve" -- "$cur"))
            return
        fi
        page=$("$program" bench "${COMP_WORDS[2]}" --help 2>/dev/null)
    else
        page=$("$program" "$command" --help 2>/dev/null)
    fi
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p' <<<"$page")" -- "$cur"))
    elif [[ $prev == --* ]]; then # a choice's values: a|b, c=another name of c; after an on|off option anything may follow, too
        words=$(sed -n "s/^  $prev \[*\([a-z0-9_=-]*|[a-z0-9_=|-]*\).*/\1/p" <<<"$page")
        COMPREPLY=($(compgen -W "${words//[|=]/ }" -- "$cur"))
    else # a model that was pulled, else a file. ORG/NAME:QUANT is three words to bash, and only the last is replaced
        if [[ $cur == : ]]; then
            before=$prev: cur=
        elif [[ $prev == : ]]; then
            before=${COMP_WORDS[COMP_CWORD - 2]}:
        fi
        COMPREPLY=($(compgen -W "$("$program" list --names 2>/dev/null)" -- "$before$cur"))
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
}
complete -o default -F _tessera tessera
