; inherits: ecma
(class_declaration name: (identifier) @name) @definition.class
(class_body
  (field_definition
    property: (_) @name
    value: [(arrow_function) (function_expression)]) @definition.method)
