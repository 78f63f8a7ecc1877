; extensions: .py .pyi .pyw
; names: SConstruct SConscript wscript
; interpreters: python pypy
(function_definition name: (identifier) @name) @definition.function
(class_definition name: (identifier) @name) @definition.class

(call function: (identifier) @reference.call)
(call function: (attribute attribute: (identifier) @reference.call))

(import_statement) @import
(import_from_statement) @import
(future_import_statement) @import
