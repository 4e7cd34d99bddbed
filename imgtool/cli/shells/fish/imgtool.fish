# fish completion for imgtool

function __imgtool_complete
    set -lx _IMGTOOL_COMPLETE complete_fish
    set -lx _TYPER_COMPLETE_FISH_ACTION get-args
    set -lx _TYPER_COMPLETE_ARGS (commandline -cp | string collect)
    set -lx IMGTOOL_COMPLETE_AFTER (string sub -s (math (string length -- $_TYPER_COMPLETE_ARGS) + 1) -- (commandline -p | string collect))
    set -l found (imgtool 2>/dev/null | string match -v '')
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end

complete --command imgtool --no-files --arguments '(__imgtool_complete)'
