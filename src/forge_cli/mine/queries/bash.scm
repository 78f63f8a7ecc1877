; extensions: .sh .bash .zsh .ksh .bats .ebuild .eclass
; names: PKGBUILD APKBUILD .bashrc .bash_profile .profile .zshrc
; interpreters: bash sh dash ksh zsh ash busybox bats
(function_definition name: (word) @name body: (_) @body) @definition.function

; What only steers is no call.
((command name: (command_name (word) @reference.call))
  (#not-any-of? @reference.call
    "return" "exit" "break" "continue" "shift" "set" "unset" "true" "false" ":" "." "source"))

((command name: (command_name (word) @_source)) @import
  (#match? @_source "^(source|\\.)$"))
