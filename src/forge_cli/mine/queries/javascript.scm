; inherits: ecma
; extensions: .js .mjs .cjs .jsx
; interpreters: node nodejs
(class_declaration name: (identifier) @name) @definition.class
(class_body
  (field_definition
    property: (_) @name
    value: [(arrow_function) (function_expression)]) @definition.method)
