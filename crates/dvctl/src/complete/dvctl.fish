# Completion of dvctl for fish. Put it into ~/.config/fish/completions/dvctl.fish
function __dvctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete -- $words[2..] "$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c dvctl -f -a '(__dvctl_complete)'
