; extensions: .lua .rockspec
; interpreters: lua luajit
(function_declaration name: (_) @name body: (_)? @body) @definition.function
(assignment_statement
  (variable_list . name: [(identifier) (dot_index_expression)] @name)
  (expression_list . value: (function_definition body: (_)? @body))) @definition.function
(variable_declaration
  (assignment_statement
    (variable_list . name: [(identifier) (dot_index_expression)] @name)
    (expression_list . value: (function_definition body: (_)? @body)))) @definition.function

(function_call name: (identifier) @reference.call)
(function_call name: (dot_index_expression field: (identifier) @reference.call))
(function_call name: (method_index_expression method: (identifier) @reference.call))

((variable_declaration
  (assignment_statement
    (expression_list
      . value: (function_call name: (identifier) @_require)))) @import
  (#eq? @_require "require"))
